"""Fields of CSV have the value that they have in a file that trains."""

import math
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esteira.fields import FALSE, NULL_VALUES, TRUE, from_text
from esteira.schema import DUCKDB_TYPES, Column, Refused, check_value
from etl.validate import check_sql

PIECES = [*"0123456789+-.eE", "nan", "inf", "_", " ", "NA", "2026-01-02", "T03:04:05Z", "٣", "1" * 25, "true", "Yes"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
DATABASE = duckdb.connect(":memory:")


def by_etl(column: Column, text: str) -> Any:
    """What etl makes of the text in a file; None where it is missing or refused."""
    with DATABASE.cursor() as connection:
        found = connection.execute(check_sql([column], NULL_VALUES, "(SELECT 1 AS _line, $text AS c)"), {"text": text})
        row = found.fetchone()
    assert row is not None
    return row[1]


def by_request(column: Column, text: str) -> Any:
    try:
        found = check_value(column, from_text(column.type, text, NULL_VALUES))
    except Refused:
        return None
    return found.replace(tzinfo=None) if column.type == "timestamp" and found else found  # type: ignore[union-attr, call-arg]


@pytest.mark.parametrize("kind", DUCKDB_TYPES)
@given(text=TEXTS)
def test_a_text_has_the_value_that_it_has_in_a_file_that_trains(kind: Any, text: str) -> None:
    column = Column(name="c", type=kind, nullable=True)
    found, expected = by_request(column, text), by_etl(column, text)
    assert (found, type(found)) == (expected, type(expected))
    if isinstance(found, float):
        assert math.copysign(1, found) == math.copysign(1, expected)


@pytest.mark.parametrize("text", [*TRUE, *FALSE, "TRUE", "False", "T", "nO", "maybe", "2", "", "NA"])
def test_booleans_are_read_alike(text: str) -> None:
    column = Column(name="c", type="boolean", nullable=True)
    assert by_request(column, text) is by_etl(column, text) is from_known(text)


def from_known(text: str) -> bool | None:
    return {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}.get(text.lower())


@pytest.mark.parametrize("text", ["1" * 5000, "1e999", "-1e999"])
def test_what_no_number_holds_stays_text(text: str) -> None:
    for kind in ("integer", "number"):
        assert from_text(kind, text, ()) == text  # type: ignore[arg-type]
