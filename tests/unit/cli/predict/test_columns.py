"""Texts of a CSV file become what the predictor takes."""

from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esteira.pipeline import load_pipeline
from esteira.schema import Column, Refused, check_value
from esteira_cli.predict.columns import NULL_VALUES, PipelineColumns, from_text, lay_out
from esteira_cli.predict.records import FileRefused
from etl.validate import check_sql
from pages import ROOT
from trainer.examples import _row

KINDS = ("integer", "number", "string", "timestamp", "date")
PIECES = [*"0123456789+-.eE", "nan", "inf", "_", " ", "NA", "2026-01-02", "T03:04:05Z", "٣", "1" * 25]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
DATABASE = duckdb.connect(":memory:")


def by_etl(column: Column, text: str) -> Any:
    """What etl makes of the text in a file; None where it is missing or refused."""
    with DATABASE.cursor() as connection:
        found = connection.execute(check_sql([column], NULL_VALUES, "(SELECT 1 AS _line, $text AS c)"), {"text": text})
        row = found.fetchone()
    assert row is not None
    return row[1]


def by_predict(column: Column, text: str) -> Any:
    try:
        found = check_value(column, from_text(column, text, NULL_VALUES))
    except Refused:
        return None
    return found.replace(tzinfo=None) if column.type == "timestamp" and found else found  # type: ignore[union-attr, call-arg]


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
def test_a_text_has_the_value_that_it_has_in_a_file_that_trains(kind: Any, text: str) -> None:
    column = Column(name="c", type=kind, nullable=True)
    assert by_predict(column, text) == by_etl(column, text)


@pytest.mark.parametrize("text", ["true", "T", "1", "Yes", "y", "false", "F", "0", "no", "N", "maybe", "", "NA"])
def test_a_boolean_is_read_as_examples_are(text: str) -> None:
    column = Column(name="c", type="boolean", nullable=True)
    assert from_text(column, text, NULL_VALUES) == _row([column], {"c": text}, NULL_VALUES)["c"]


def test_texts_that_mean_missing_are_those_of_a_pipeline() -> None:
    assert load_pipeline(ROOT / "pipelines" / "flights").spec.null_values == NULL_VALUES


@pytest.mark.parametrize("text", ["1" * 5000, "1e999", "-1e999"])
def test_what_no_number_holds_stays_text(text: str) -> None:
    for kind in ("integer", "number"):
        assert from_text(Column(name="c", type=kind), text, ()) == text


def described(**more: Any) -> PipelineColumns:
    columns = [
        {"name": "id", "type": "integer"},
        {"name": "price", "type": "number", "nullable": True, "unit": "€"},
        {"name": "delay", "type": "integer", "known": "after"},
    ]
    return PipelineColumns.of({"columns": columns, "entity": ["id"], **more})


def test_a_newer_predictor_may_say_more() -> None:
    assert [column.name for column in described(else_="x").columns] == ["id", "price"]


def test_columns_are_found_wherever_they_stand() -> None:
    found = lay_out(described(), ["x", "price", "delay", "id", "x"])
    assert [(at, column.name) for at, column in found.places] == [(3, "id"), (1, "price")]
    assert (found.left_out, found.absent) == (["x", "delay", "x"], [])
    assert lay_out(described(), ["id"]).absent == ["price"]


@pytest.mark.parametrize("names, told", [(["price"], "lacks id"), (["id", "id"], "repeats id"), ([], "lacks id")])
def test_a_header_that_cannot_do_is_refused(names: list[str], told: str) -> None:
    with pytest.raises(FileRefused, match=told):
        lay_out(described(), names)
