"""What native code reads of a body is what the body says, and no body ends the process."""

import json
import math
import random
import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from esteira_kernel.rows import COUNTED_BODY, SMALL_BODY, SMALL_ROWS, RowReader
from unit.kernel.threads import run_at_once

NAMES = ["x", "y z", "kind", "größe", "last"]
CATEGORIES = [None, None, ["u", "v", "", "u" * 40], ["ä"], None]
READER = RowReader(NAMES, CATEGORIES)
PIECES = [
    *('{"features": [', "]}", "{", "}", "[", "]", ",", ":", " ", "\t\r\n ", "null", "true", "nul", '"', "\\", "\x00"),
    *(f'"{name}"' for name in [*NAMES, "u", "v", "", "features", "rows", "other"]),
    *("0", "-0", "1", "-", "+1", "01", "1.", ".5", "1.5", "1e5", "1E+05", "1e", "1e-400", "1e400", "0x1", "1_0", "NaN"),
    *("inf", "Infinity", "-1.7976931348623157e308", "5e-324", "9007199254740993", "123456789012345678901234567890"),
]


def read(reader: RowReader, data: bytes, most: int = 1000) -> tuple[list[list[float]], list[Any]] | None:
    found = reader.read(data, most)
    return None if found is None else (found.matrix.tolist(), [json.loads(row) for row in found.values()])


def by_python(data: bytes) -> tuple[list[list[float]], list[list[Any]]]:
    """What the body says, of a body that is right."""
    given = json.loads(data, object_pairs_hook=unique, parse_constant=refuse)
    assert list(given) == ["features"]
    values = [[row.pop(name, None) for name in NAMES] for row in given["features"]]
    assert not any(given["features"]), "a name that is none"
    return [[encoded(*pair) for pair in zip(row, CATEGORIES, strict=True)] for row in values], values


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def refuse(text: str) -> None:
    raise AssertionError(text)


def encoded(value: Any, known: list[str] | None) -> float:
    if value is None:
        return math.nan
    if known is not None:
        return float(known.index(value))
    assert isinstance(value, int | float)
    assert not isinstance(value, bool)
    assert math.isfinite(value)
    return float(value)


def alike(found: Any, expected: Any) -> bool:
    return repr(found) == repr(expected)


def row_strategy() -> st.SearchStrategy[dict[str, Any]]:
    number = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63)
    kinds = [number if known is None else st.none() | st.sampled_from(known) for known in CATEGORIES]
    return st.fixed_dictionaries({}, optional=dict(zip(NAMES, kinds, strict=True))).flatmap(
        lambda row: st.permutations(list(row.items())).map(dict)
    )


@given(st.lists(row_strategy(), min_size=1, max_size=20), st.sampled_from([None, 1, "\t"]))
@settings(max_examples=300, deadline=None)
def test_rows_in_any_order_and_any_layout_are_read(rows: list[dict[str, Any]], indent: Any) -> None:
    data = json.dumps({"features": rows}, indent=indent, ensure_ascii=False).encode()
    matrix, values = by_python(data)
    found = read(READER, data)
    assert found is not None
    assert alike(found[0], matrix)
    assert alike([[*map(plain, row)] for row in found[1]], [[*map(plain, row)] for row in values])


def plain(value: Any) -> Any:
    return float(value) if isinstance(value, int) else value


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
@example('{"features": [{"x": 1, "x": 2}]}')
@example('{"features": [{"x": 1},]}')
@example('{"features": [{"x": 1}]} {')
@settings(max_examples=3000, deadline=None)
def test_what_is_read_is_right_json_of_the_features(text: str) -> None:
    for data in (
        text.encode(),
        f'{{"features": [{{{text}}}]}}'.encode(),
        f'{{"features": [{{"x": {text}}}]}}'.encode(),
    ):
        found = read(READER, data)
        if found is not None:
            matrix, values = by_python(data)
            assert alike(found[0], matrix)
            assert alike(found[1], values)


@given(st.data())
@settings(max_examples=600, deadline=None)
def test_a_body_with_some_bytes_changed_is_read_rightly_or_not_at_all(data: st.DataObject) -> None:
    rows = data.draw(st.lists(row_strategy(), min_size=1, max_size=4))
    body = bytearray(json.dumps({"features": rows}, ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    found = read(READER, bytes(body))
    if found is not None:
        assert alike(found[0], by_python(bytes(body))[0])


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_a_body_that_is_cut_short_is_not_read(cut: int) -> None:
    body = json.dumps({"features": [{"x": 1.5, "kind": "u", "last": -1e-7}]}).encode()
    assert read(READER, body) is not None
    assert read(READER, body[: min(cut, len(body) - 1)]) is None


def test_numbers_have_the_bits_that_python_gives_them() -> None:
    random = np.random.default_rng(3)
    bits = random.integers(0, 2**64, size=40_000, dtype=np.uint64).view(np.float64)
    numbers = [*bits[np.isfinite(bits)].tolist(), *random.normal(size=10_000).tolist()]
    texts = [*map(repr, numbers), *(f"{number:.{digits}e}" for number in numbers[:5000] for digits in (0, 5, 20, 30))]
    texts = [text for text in texts if np.isfinite(float(text))]
    for start in range(0, len(texts), 1000):
        chosen = texts[start : start + 1000]
        found = READER.read(b'{"features": [%b]}' % ",".join(f'{{"x": {text}}}' for text in chosen).encode(), 1000)
        assert found is not None
        assert np.array_equal(found.matrix[:, 0].copy().view(np.int64), np.array([*map(float, chosen)]).view(np.int64))


def hard_numbers(count: int) -> Iterator[str]:
    """Of all lengths and sizes, and between two doubles."""
    draw = random.Random(5)
    for _ in range(count):
        odd = (draw.getrandbits(53) | 1 << 52) * 2 + 1
        digits, fraction = draw.randrange(10 ** draw.randrange(1, 21)), draw.randrange(10**9)
        yield draw.choice(
            [
                repr(draw.gauss(0, 1)),
                repr(struct.unpack("d", struct.pack("Q", draw.getrandbits(62)))[0]),
                f"{digits}.{fraction:0{draw.randrange(1, 12)}}",
                f"-{digits}e{draw.randrange(-30, 30)}",
                f"0.{'0' * draw.randrange(12)}{digits}",
                str(odd << draw.randrange(10)),
                f"{odd * 125 // 1000}.{odd * 125 % 1000:03}",
                f"{odd}e{draw.randrange(24)}",
            ]
        )


def test_numbers_between_two_doubles_are_those_that_python_takes() -> None:
    texts = list(hard_numbers(200_000))
    for start in range(0, len(texts), 1000):
        part = texts[start : start + 1000]
        rows = ",".join(f'{{"x":{text}}}' for text in part)
        found = READER.read(f'{{"features":[{rows}]}}'.encode(), 1000)
        assert found is not None
        expected = [float(text) for text in part]
        wrong = [
            text for text, one, other in zip(part, found.matrix[:, 0].tolist(), expected, strict=True) if one != other
        ]
        assert not wrong


def test_more_rows_than_are_asked_for_are_not_read() -> None:
    body = msgspec.json.encode({"features": [{"x": 1}] * 5})
    assert read(READER, body, 5) is not None
    assert read(READER, body, 4) is None


@pytest.mark.parametrize("rows", [1, SMALL_ROWS, SMALL_ROWS + 1, 1000])
@pytest.mark.parametrize("padding", [0, SMALL_BODY, COUNTED_BODY])
def test_bodies_of_all_sizes_are_read(rows: int, padding: int) -> None:
    body = msgspec.json.encode({"features": [{"x": float(n), "kind": "v"} for n in range(rows)]}) + b" " * padding
    found = READER.read(body, 1000)
    assert found is not None
    assert found.matrix[:, 0].tolist() == [*map(float, range(rows))]
    assert found.values() == [b'[%.1f,null,"v",null,null]' % number for number in range(rows)]


def test_rows_of_a_large_body_stay_as_they_are_when_the_thread_reads_on() -> None:
    first = READER.read(b'{"features": [{"x": 1}]}' + b" " * SMALL_BODY, 1000)
    READER.read(b'{"features": [{"x": 2}]}' + b" " * SMALL_BODY, 1000)
    assert first is not None
    assert (first.matrix[0, 0], first.is_small) == (1.0, False)


def test_threads_do_not_disturb_each_other() -> None:
    wrong: list[float] = []

    def ask(number: int) -> None:
        for _ in range(3000):
            found = READER.read(b'{"features": [{"x": %d, "kind": "v"}]}' % number, 1000)
            if found is None or found.matrix[0, 0] != number or found.values() != [b'[%d,null,"v",null,null]' % number]:
                wrong.append(number)

    run_at_once(ask)
    assert not wrong


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "\ud800"])
def test_names_that_json_escapes_are_not_read(name: str) -> None:
    reader = RowReader([name], [None])
    for text in (json.dumps(name), f'"{name}"'):
        assert reader.read(b'{"features": [{%b: 1}]}' % text.encode("utf-8", "surrogatepass"), 1) is None


@pytest.mark.parametrize("category", ['a"b', "a\\b", "a\nb", "\ud800", '"'])
def test_categories_that_json_escapes_are_not_read(category: str) -> None:
    reader = RowReader(["kind"], [[category, "u"]])
    for text in (json.dumps(category), f'"{category}"'):
        assert reader.read(b'{"features": [{"kind": %b}]}' % text.encode("utf-8", "surrogatepass"), 1) is None
    assert read(reader, b'{"features": [{"kind": "u"}]}') == ([[1.0]], [["u"]])


def test_no_features_and_many_features_are_read() -> None:
    assert read(RowReader([], []), b'{"features": [{}, {}]}') == ([[], []], [[], []])
    names = [f"f{number}" for number in range(600)]
    found = RowReader(names, [None] * 600).read(msgspec.json.encode({"features": [dict.fromkeys(names, 2.5)]}), 1)
    assert found is not None
    assert found.matrix.tolist() == [[2.5] * 600]


def test_long_numbers_are_not_read_for_they_are_logged_as_they_are_written() -> None:
    for zeros, fine in ((38, True), (39, False)):
        found = READER.read(b'{"features": [{"x": 0.%b}]}' % (b"0" * zeros), 1)
        assert (found is not None) == fine


def read_values(values: bytes, count: int) -> tuple[list[list[float]], list[Any]] | None:
    found = READER.read_values(values, count)
    return None if found is None else (found.matrix.tolist(), [json.loads(row) for row in found.values()])


def full_row_strategy() -> st.SearchStrategy[list[Any]]:
    number = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63)
    kinds = [number if known is None else st.none() | st.sampled_from(known) | st.text() for known in CATEGORIES]
    return st.tuples(*kinds).map(list)


@given(st.lists(full_row_strategy(), min_size=1, max_size=40))
@settings(max_examples=300, deadline=None)
def test_values_in_their_order_are_read_and_new_categories_are_missing(rows: list[list[Any]]) -> None:
    data = msgspec.json.encode(rows)
    found = read_values(data, len(rows))
    assert (found is None) == (b"\\" in data)
    if found is not None:
        known = [
            [
                None if names is not None and value not in names else value
                for value, names in zip(row, CATEGORIES, strict=True)
            ]
            for row in rows
        ]
        expected = [[encoded(*pair) for pair in zip(row, CATEGORIES, strict=True)] for row in known]
        assert alike(found[0], expected)
        assert alike([[*map(plain, row)] for row in found[1]], [[*map(plain, row)] for row in rows])


@pytest.mark.parametrize(
    "values",
    [
        *(
            b"",
            b"[]",
            b"[[]]",
            b"[[1,2,null,null]]",
            b"[[1,2,null,null,3,4]]",
            b"[[1,2,null,null,3]",
            b"[[1,2,null,null,3]]]",
        ),
        *(b"[[1,2,null,null,true]]", b'[[1,2,null,null,"3"]]', b"[[1,2,3,null,4]]", b'[[1,2,"\\u0075",null,3]]'),
        *(b'[[1,2,"\\",null,3]]', b'[[1,2,"u', b"[[1,2,null,null,1e999]]", b'{"features": [{"x": 1}]}'),
        b"[[1,2,null,null,3],[1,2,null,null,3]]",
    ],
)
def test_values_of_another_form_are_not_read(values: bytes) -> None:
    assert read_values(b"[[1,2,null,null,3]]", 1) is not None
    assert read_values(values, 1) is None


@given(st.lists(st.sampled_from([*PIECES, "[[", "],[", "]]"]), max_size=30).map("".join))
@settings(max_examples=1000, deadline=None)
def test_no_values_end_the_process(text: str) -> None:
    found = read_values(text.encode(), 2)
    if found is not None:
        assert alike(found[1], json.loads(text))
