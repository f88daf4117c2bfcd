"""The SQL checks of files hold the same as the Python checks of requests."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esteira.schema import Column, Refused, check_value, entity_key, entity_key_sql
from etl.validate import check_sql, reason_name

NUMBERS = [
    *("0", "-0", "1", "517", "517.0", "517.5", "-3", "1e3", "5e-1", "1e19", "1e999", "-1e999", "1e-999"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "9007199254740993"),
    "123456789012345678901234567890",
]
JSON_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
TIMES = [
    *("2013-01-31T18:00:00Z", "2013-01-31T18:00:00+05:30", "2013-01-31 18:00:00-0530", "2013-01-31T18:00"),
    *("2013-01-31", "2013-1-31", "2013-02-30", "20130131", "2013-W05-4", "2013-01-31T24:00:00Z", "now", "infinity"),
    *("2013-01-31T18:00:00.5Z", "2013-01-31T18:00:00.123456", "2013-01-31T18:00:00.1234567", "2013-01-31T18:00:60"),
    *("0000-01-01", "0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "10000-01-01", "2013-01-31T18:00:00+05"),
    *("0099-12-31T00:00:00Z", " 2013-01-31", "2013-01-31T18:00:00z", "2013-01-31T18:00:00 Europe/Lisbon"),
]
TEXTS = ["a", "abcdef", "é", "🙂🙂🙂", "north", "e\u0301e\u0301e\u0301", "'", "\\", "|", " "]
RULES: list[dict[str, Any]] = [
    {"type": "integer"},
    {"type": "integer", "min": 0.5, "max": 1000},
    {"type": "integer", "min": -3, "max": 9007199254740992.0},
    {"type": "number"},
    {"type": "number", "min": -1, "max": 517.5},
    {"type": "string"},
    {"type": "string", "max_length": 3},
    {"type": "string", "values": ["north", "a", "'"]},
    {"type": "boolean"},
    {"type": "timestamp"},
    {"type": "date"},
]


def check_text(column: Column, values: list[str]) -> list[tuple[Any, str | None]]:
    with duckdb.connect() as connection:
        connection.register("texts", pa.table({column.name: values, "_line": range(len(values))}))
        query = check_sql([column], ["", "NA"], "texts")
        rows = connection.execute(f"SELECT c, {reason_name(0)} FROM ({query}) ORDER BY _line").fetchall()
    return [(_aware(value), reason) for value, reason in rows]


def _aware(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value


def check_python(column: Column, text: str) -> tuple[bool, Any]:
    """What a request's check says of the value that the text of a file means."""
    value: Any = None if text in ("", "NA") else text
    if value is not None and column.type in ("integer", "number") and JSON_NUMBER.fullmatch(text):
        value = json.loads(text)
    if column.type == "boolean" and text in BOOLEANS:
        value = BOOLEANS[text]
    try:
        return True, check_value(column, value)
    except Refused:
        return False, None


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("nullable", [False, True])
def test_files_and_requests_hold_values_to_the_same_rules(rules: dict[str, Any], nullable: bool) -> None:
    column = Column(name="c", nullable=nullable, **rules)
    texts = ["", "NA", "true", "false", "nan", "inf", *NUMBERS, *TIMES, *TEXTS]
    for text, (value, reason) in zip(texts, check_text(column, texts), strict=True):
        accepted, expected = check_python(column, text)
        assert (text, reason is None) == (text, accepted)
        if accepted:
            assert (text, value, type(value)) == (text, expected, type(expected))


@pytest.mark.parametrize(("text", "value"), [("+5", 5), ("0517", 517), ("5.", 5), ("517.000", 517), ("5.17e2", 517)])
def test_an_integer_may_be_written_as_files_write_it(text: str, value: int) -> None:
    assert check_text(Column(name="c", type="integer"), [text]) == [(value, None)]


@pytest.mark.parametrize("text", ["0x1F", "1_000", " 5", "5 ", "five", "1,5", "--5", "1e", "."])
@pytest.mark.parametrize("kind", ["integer", "number"])
def test_what_is_no_number_is_refused(kind: Any, text: str) -> None:
    ((value, reason),) = check_text(Column(name="c", type=kind), [text])
    assert value is None
    assert reason is not None


def test_booleans_may_be_written_in_any_case() -> None:
    found = check_text(Column(name="c", type="boolean"), ["True", "FALSE", "1", "T", "no", "2"])
    assert [value for value, _ in found] == [True, False, True, True, False, None]


def test_reasons_say_what_was_expected_without_the_value() -> None:
    column = Column(name="c", type="integer", min=0, max=10)
    found = [reason for _, reason in check_text(column, ["", "x", "-1", "11"])]
    assert found == [
        "missing; expected integer",
        "expected an integer of 64 bits",
        "below the minimum 0",
        "above the maximum 10",
    ]


@given(
    st.tuples(
        st.integers(-(2**63), 2**63 - 1),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8),
        st.datetimes(),
        st.booleans(),
        st.dates(),
    )
)
def test_sql_and_python_make_the_same_entity_key(values: tuple[Any, ...]) -> None:
    kinds: list[Any] = ["integer", "string", "timestamp", "boolean", "date"]
    columns = [Column(name=kind, type=kind) for kind in kinds]
    given_columns = ", ".join(f"? AS {kind}" if kind != "date" else "?::DATE AS date" for kind in kinds)
    with duckdb.connect() as connection:
        query = f"SELECT {entity_key_sql(columns)} FROM (SELECT {given_columns})"
        ((found,),) = connection.execute(query, list(values)).fetchall()
    assert found == entity_key(_aware(value) for value in values)
