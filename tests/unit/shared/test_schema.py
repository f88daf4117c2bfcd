from datetime import UTC, date, datetime
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esteira.schema import DUCKDB_TYPES, Column, Refused, check_row, check_value, entity_key, entity_key_sql, quote

DUCKDB = duckdb.connect(":memory:")
MOMENT = datetime(2013, 1, 31, 18, tzinfo=UTC)


@pytest.mark.parametrize(
    "kind, given_value, expected",
    [
        ("integer", 2**63 - 1, 2**63 - 1),
        ("integer", -(2**63), -(2**63)),
        ("integer", 3.0, 3),
        ("number", 3, 3.0),
        ("number", -0.0, -0.0),
        ("string", "", ""),
        ("string", "é|\\", "é|\\"),
        ("boolean", False, False),
        ("timestamp", "2013-01-31T18:00:00Z", MOMENT),
        ("timestamp", "2013-01-31 18:00", MOMENT),
        ("timestamp", "2013-01-31T23:30:00+0530", MOMENT),
        ("timestamp", "2013-01-31T18:00:00.000001", MOMENT.replace(microsecond=1)),
        ("date", "0001-01-01", date(1, 1, 1)),
    ],
)
def test_takes_what_fits_the_type(kind: Any, given_value: object, expected: object) -> None:
    typed = check_value(Column(name="c", type=kind), given_value)
    assert (typed, type(typed)) == (expected, type(expected))


@pytest.mark.parametrize(
    "kind, value",
    [
        *(("integer", value) for value in (True, 2**63, -(2**63) - 1, 10**4000, 2.5, 1e300, "1", [], {})),
        *(("integer", value) for value in (float("nan"), float("inf"))),
        *(("number", value) for value in (True, float("nan"), float("-inf"), 10**400, "1.5", [])),
        *(("string", value) for value in (1, True, "\0", "\ud800", "a\udfffb", "x" * 1001, [])),
        *(("boolean", value) for value in (0, 1, "true", 1.0)),
        *(("timestamp", value) for value in ("0000-01-01", "2013-02-30", "2013-01-31T25:00", "now", 0, True, "")),
        *(("timestamp", value) for value in ("0001-01-01T00:00+05:00", "9999-12-31T23:00-05:00")),
        *(("timestamp", value) for value in ("1699-12-31T00:00Z", "2200-01-01")),
        *(("timestamp", value) for value in ("2013-01-31T18:00:00.1234567Z", "２013-01-31", "2013-01-31\0")),
        *(("date", value) for value in ("2013-1-1", "2013-02-30", "2013-01-31T00:00", 20130131)),
        *((kind, None) for kind in DUCKDB_TYPES),
    ],
)
def test_refuses_what_does_not_fit_the_type(kind: Any, value: object) -> None:
    with pytest.raises(Refused):
        check_value(Column(name="c", type=kind), value)


@pytest.mark.parametrize("kind", list(DUCKDB_TYPES))
def test_a_nullable_column_may_be_missing(kind: Any) -> None:
    assert check_row([Column(name="c", type=kind, nullable=True)], {}, "row") == ({"c": None}, [])


@pytest.mark.parametrize(
    "rules, value, message",
    [
        ({"type": "integer", "min": 2}, 1, "below the minimum 2, got 1"),
        ({"type": "number", "max": 0.5}, 0.75, "above the maximum 0.5, got 0.75"),
        ({"type": "string", "values": ["a", "b"]}, "c", "none of a, b, got 'c'"),
        ({"type": "string", "max_length": 2}, "abc", "longer than 2 characters, got 'abc'"),
        ({"type": "number", "min": 1234567.0}, 0, "below the minimum 1234567, got 0"),
        ({"type": "integer"}, 10**400, "expected an integer of 64 bits, got an integer of hundreds of digits"),
        ({"type": "integer", "min": 0}, True, "expected an integer of 64 bits, got true"),
    ],
)
def test_rules_say_what_they_allow(rules: Any, value: object, message: str) -> None:
    with pytest.raises(Refused, match=message):
        check_value(Column(name="c", **rules), value)


def test_every_problem_of_a_row_is_named_by_its_path() -> None:
    columns = [
        Column(name="a", type="integer"),
        Column(name="b", type="string"),
        Column(name="late", type="integer", known="after"),
    ]
    _, problems = check_row(columns, {"a": "x", "late": 1, "other": 2}, "rows[3]")
    assert {problem.path for problem in problems} == {"rows[3].a", "rows[3].b", "rows[3].late", "rows[3].other"}


@pytest.mark.parametrize("row", [None, [], "x", 1, True])
def test_a_row_is_an_object(row: object) -> None:
    ((problem,),) = (check_row([], row, "rows[0]")[1],)
    assert problem.path == "rows[0]"


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.sampled_from(["|", "\\", "\\|"])
VALUES = {
    "integer": st.integers(-(2**63), 2**63 - 1),
    "string": TEXT,
    "boolean": st.booleans(),
    "timestamp": st.datetimes(),
    "date": st.dates(),
}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(list(VALUES)).flatmap(lambda k: st.tuples(st.just(k), VALUES[k])), min_size=1))
def test_python_and_sql_give_the_same_entity_key(parts: list[tuple[Any, Any]]) -> None:
    columns = [Column(name=f'c"{index}', type=kind) for index, (kind, _) in enumerate(parts)]
    typed = [v.replace(tzinfo=UTC) if isinstance(v, datetime) else v for _, v in parts]
    values = ", ".join(f"?::{DUCKDB_TYPES[c.type]} AS {quote(c.name)}" for c in columns)
    (found,) = DUCKDB.execute(
        f"SELECT {entity_key_sql(columns)} FROM (SELECT {values})", [value for _, value in parts]
    ).fetchone()  # type: ignore[misc]
    assert found == entity_key(typed)


@given(st.lists(TEXT, min_size=1, max_size=4), st.lists(TEXT, min_size=1, max_size=4))
def test_different_entities_of_one_length_have_different_keys(one: list[str], other: list[str]) -> None:
    if len(one) == len(other) and one != other:
        assert entity_key(one) != entity_key(other)
