"""What the compiled type takes, the rules take, with the same values; what is ordinary, it takes."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esteira.schema import Column, Feature, check_row
from predictor.decoding import MAX_ROWS, BodyDecoder

COLUMNS = [
    Column(name="units", type="integer", min=0, max=10),
    Column(name="big number", type="integer", nullable=True),
    Column(name="price", type="number", min=0.5, max=2.5),
    Column(name="ratio", type="number", nullable=True),
    Column(name="shop", type="string", max_length=3),
    Column(name="grade", type="string", values=["a", "b", "ç"], nullable=True),
    Column(name="open", type="boolean"),
    Column(name="at", type="timestamp"),
    Column(name="on", type="date", nullable=True),
    Column(name="outcome", type="number", known="after"),
]
FEATURES = [Feature("x", "numeric"), Feature("y z", "numeric"), Feature("kind", "categorical", ["u", "v"])]
BEFORE = [column for column in COLUMNS if column.known == "before"]
AS_FEATURES = [Column(name=f.name, type="number" if f.kind == "numeric" else "string", nullable=True) for f in FEATURES]
GOOD = {
    "units": "3",
    "big number": "-9223372036854775808",
    "price": "2",
    "ratio": "-0.0",
    "shop": '"a|b"',
    "grade": '"ç"',
    "open": "true",
    "at": '"2013-01-31T18:00:00+02:00"',
    "on": '"2013-01-31"',
}
ODD = [
    *(
        "null",
        "true",
        "false",
        "0",
        "-1",
        "11",
        "10",
        "3.0",
        "0.5",
        "2.5",
        "2.50000001",
        "1e2",
        "1e999",
        "-1e400",
        "5e-324",
    ),
    *("9223372036854775807", "9223372036854775808", "123456789012345678901234567890", "NaN", "Infinity", "1" * 400),
    *(
        '""',
        '"a"',
        '"abcd"',
        '"\\u0000"',
        '"\\ud800"',
        '"\\ud83d\\ude00"',
        '"ç"',
        '"\\u00e7"',
        '"c"',
        '"3"',
        "[]",
        "{}",
        "[1]",
    ),
    *('"2013-01-31"', '"2013-02-31"', '"2013-01-31 18:00"', '"2013-01-31T18:00:00Z"', '"2013-01-31T18:00:00.123456Z"'),
    *('"1699-01-01"', '"2200-01-01T00:00:00Z"', '"2013-01-31T24:00:00Z"', '"2013-01-31t18:00:00z"', '"0001-01-01"'),
]
DECODER = BodyDecoder(COLUMNS, FEATURES)


def body(kind: str, *rows: dict[str, str]) -> bytes:
    told = ", ".join("{" + ", ".join(f"{json.dumps(key)}: {text}" for key, text in row.items()) + "}" for row in rows)
    return f'{{"{kind}": [{told}]}}'.encode()


def by_the_rules(columns: list[Column], data: bytes, kind: str) -> list[tuple[Any, ...]] | None:
    try:
        rows = json.loads(data, parse_constant=lambda text: pytest.fail(text))[kind]
    except (ValueError, UnicodeDecodeError):
        return None
    checked = [check_row(columns, row, "") for row in rows]
    return None if any(problems for _, problems in checked) else [tuple(row.values()) for row, _ in checked]


def same(found: list[tuple[Any, ...]] | None, expected: list[tuple[Any, ...]] | None) -> bool:
    """Of the same types as well, and with the same sign of zero."""
    return repr(found) == repr(expected)


def test_an_ordinary_row_is_taken() -> None:
    found = DECODER.decode(body("rows", GOOD, GOOD))
    assert found is not None
    assert same(found.rows, by_the_rules(COLUMNS, body("rows", GOOD, GOOD), "rows"))


@pytest.mark.parametrize("name", [c.name for c in BEFORE if c.nullable])
@pytest.mark.parametrize("absent", [True, False])
def test_a_nullable_value_may_be_absent_or_null(name: str, absent: bool) -> None:
    row = {key: text for key, text in GOOD.items() if key != name} | ({} if absent else {name: "null"})
    found = DECODER.decode(body("rows", row))
    assert found is not None
    assert found.rows is not None
    assert found.rows[0][[c.name for c in BEFORE].index(name)] is None


@given(
    st.dictionaries(st.sampled_from([*GOOD, "outcome", "else"]), st.sampled_from(ODD), max_size=3), st.integers(0, 8)
)
@settings(max_examples=600, deadline=None)
def test_what_is_taken_has_the_values_of_the_rules(changes: dict[str, str], dropped: int) -> None:
    row = {key: text for at, (key, text) in enumerate(GOOD.items()) if at != dropped} | changes
    data = body("rows", GOOD, row)
    found = DECODER.decode(data)
    if found is not None:
        assert "NaN" not in row.values()
        assert same(found.rows, by_the_rules(COLUMNS, data, "rows"))


@given(st.dictionaries(st.sampled_from(["x", "y z", "kind", "else"]), st.sampled_from(ODD)))
@settings(max_examples=400, deadline=None)
def test_features_that_are_taken_have_the_values_of_the_rules(row: dict[str, str]) -> None:
    data = body("features", row)
    found = DECODER.decode(data)
    if found is None:
        return
    assert same(found.features, by_the_rules(AS_FEATURES, data, "features"))


@pytest.mark.parametrize("text", ['"unseen"', '"\\u0075"'])
def test_a_category_that_is_new_or_escaped_is_taken(text: str) -> None:
    found = DECODER.decode(body("features", {"kind": text}))
    assert found is not None
    assert found.features == [(None, None, json.loads(text))]


def test_features_with_explanations_are_taken() -> None:
    found = DECODER.decode(b'{"features": [{"x": 1}], "explain": true}')
    assert found is not None
    assert (found.features, found.explain) == ([(1.0, None, None)], True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"rows": []}',
        b'{"rows": null}',
        b'{"rows": null, "features": [{}]}',
        b'{"features": [{}], "rows": null}',
        b'{"rows": [{}], "features": [{}]}',
        b'{"features": [{}], "more": 1}',
        body("features", *[{"x": "1"}] * (MAX_ROWS + 1)),
        body("features", {"kind": '"' + "a" * 1001 + '"'}),
        b'{"features": [' + b"[" * 5000,
    ],
)
def test_what_the_rules_refuse_is_not_taken(data: bytes) -> None:
    assert DECODER.decode(data) is None


def test_names_that_no_compiled_field_can_have_are_left_to_the_rules() -> None:
    decoder = BodyDecoder([Column(name='a"b', type="number")], [])
    assert decoder.decode(json.dumps({"rows": [{'a"b': 1}]}).encode()) is None
