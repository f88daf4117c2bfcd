"""Of any value under any rule, the compiled type, the rules and etl's SQL make the same, in the same words."""

import json
from typing import Any

import duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from esteira.exceptions import BadInput
from esteira.fields import NULL_VALUES, from_text
from esteira.schema import DUCKDB_TYPES, Column
from etl.validate import check_sql, reason_name
from predictor.decoding import BodyDecoder
from predictor.inference import PredictRequest
from predictor.problems import check_objects, decode_rows
from value_rules import python_value

DATABASE = duckdb.connect(":memory:")
BOUNDS = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-12, 12).map(float)
WORDS = st.text(st.sampled_from("abé🙂 "), max_size=4)


@st.composite
def columns(draw: st.DrawFn) -> Column:
    """Any column that a pipeline.yaml may declare."""
    kind: Any = draw(st.sampled_from(list(DUCKDB_TYPES)))
    rules: dict[str, Any] = {}
    if kind in ("integer", "number"):
        low = draw(BOUNDS.filter(lambda bound: bound is None or kind == "number" or bound < 2**63))
        high = draw(BOUNDS.filter(lambda bound: bound is None or kind == "number" or bound >= -(2**63)))
        rules = {"min": low, "max": high if low is None or high is None or high >= low else low}
    if kind == "string":
        rules = {"max_length": draw(st.integers(1, 6)), "values": draw(st.none() | st.lists(WORDS, min_size=1))}
    return Column(name="c", type=kind, nullable=draw(st.booleans()), **rules)


def digits() -> st.SearchStrategy[str]:
    """Numbers as JSON may write them."""
    parts = st.tuples(
        st.sampled_from(["", "-"]),
        st.sampled_from(
            ["0", "1", "3", "10", "9007199254740993", "9223372036854775807", "9223372036854775808", "1" * 30]
        ),
        st.sampled_from(["", ".0", ".5", ".25", ".000"]),
        st.sampled_from(["", "e0", "E1", "e+2", "e-1", "e15", "e18", "e300", "e999", "e-999"]),
    )
    return parts.map("".join)


def times() -> st.SearchStrategy[str]:
    """Times and days, and what looks like them."""
    parts = st.tuples(
        st.sampled_from(
            ["2013-01-31", "2013-02-30", "1700-01-01", "1699-12-31", "2199-12-31", "0001-01-01", "2013-1-1"]
        ),
        st.sampled_from(["", "", "T18:00", " 18:00:00", "T23:59:59.5", "T24:00:00", "T18:00:00.1234567", "t18:00"]),
        st.sampled_from(["", "Z", "+05:30", "-0200", "+24:00", "z", " UTC"]),
    )
    return parts.map("".join)


STRINGS = st.text(max_size=8) | WORDS | times() | digits() | st.sampled_from(["NA", "true", "No", "٣", "a\0", "\ud800"])
TEXTS = st.one_of(
    digits(),
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["null", "true", "false", "[]", "[1]", "{}", '{"a": 1}', "NaN", "Infinity", "-Infinity"]),
    STRINGS.map(json.dumps),
    STRINGS.filter(lambda text: text.isprintable()).map(lambda text: json.dumps(text, ensure_ascii=False)),
)


def by_the_rules(column: Column, body: bytes) -> tuple[Any, str | None]:
    try:
        asked = decode_rows(body, PredictRequest, lambda found: check_objects([column], found.rows or [], "rows"))
        return check_objects([column], asked.rows or [], "rows")[0]["c"], None
    except BadInput as error:
        (problem,) = error.problems
        return None, problem.message if problem.path == "rows[0].c" else f"told without its path: {problem}"


def by_etl(column: Column, field: str) -> tuple[Any, str | None]:
    query = f"SELECT c, {reason_name(0)} FROM ({check_sql([column], NULL_VALUES, '(SELECT 1 AS _line, $text AS c)')})"
    with DATABASE.cursor() as connection:
        found = connection.execute(query, {"text": field}).fetchone()
    assert found is not None
    return found[0], found[1]


def field_of(column: Column, text: str) -> str | None:
    """The field of a CSV file that means the same as a JSON value; None where there is none (see docs/values.md)."""
    value = python_value(text)
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return None
    if isinstance(value, str):
        sayable = value.isprintable() and value.encode(errors="replace").decode() == value
        return value if sayable and from_text(column.type, value, NULL_VALUES) == value else None
    if column.type == "string" or (column.type == "boolean" and not isinstance(value, bool) and text in ("0", "1")):
        return None
    is_rounded = column.type == "integer" and isinstance(value, float) and abs(value) >= 2**53
    return None if is_rounded else text


@given(columns(), TEXTS)
@settings(max_examples=1000, deadline=None)
def test_a_value_has_one_meaning(column: Column, text: str) -> None:
    body = b'{"rows": [{"c": %b}]}' % text.encode()
    value, problem = by_the_rules(column, body)
    decoded = BodyDecoder([column], []).decode(body)
    if decoded is not None:
        assert (repr(decoded.rows), problem) == (repr([(value,)]), None)
    field = field_of(column, text)
    if field is not None:
        found, reason = by_etl(column, field)
        assert (reason is None) == (problem is None)
        assert problem is None or problem == reason or problem.startswith(f"{reason}, got ")
        expected = value.replace(tzinfo=None) if column.type == "timestamp" and value is not None else value
        assert problem is not None or (found, type(found)) == (expected, type(expected))


def test_what_is_ordinary_needs_no_second_reading() -> None:
    column = Column(name="c", type="number", nullable=True, min=0)
    decoder = BodyDecoder([column], [])
    for text in ("1", "1.5", "null", "1e3"):
        assert decoder.decode(b'{"rows": [{"c": %b}]}' % text.encode()) is not None
