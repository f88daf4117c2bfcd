"""Where a file has the columns of a pipeline."""

from typing import Any

import pytest

from esteira.fields import NULL_VALUES
from esteira_cli.predict.columns import PipelineColumns, lay_out
from esteira_cli.predict.records import FileRefused


def described(**more: Any) -> PipelineColumns:
    columns = [
        {"name": "id", "type": "integer"},
        {"name": "price", "type": "number", "nullable": True, "unit": "€"},
        {"name": "delay", "type": "integer", "known": "after"},
    ]
    return PipelineColumns.of({"columns": columns, "entity": ["id"], **more})


def test_a_newer_predictor_may_say_more() -> None:
    assert [column.name for column in described(else_="x").columns] == ["id", "price"]


def test_texts_that_mean_missing_are_those_of_the_pipeline() -> None:
    assert described(null_values=["", "-"]).null_values == ("", "-")
    assert described().null_values == NULL_VALUES  # of a predictor that does not tell them


def test_columns_are_found_wherever_they_stand() -> None:
    found = lay_out(described(), ["x", "price", "delay", "id", "x"])
    assert [(at, column.name) for at, column in found.places] == [(3, "id"), (1, "price")]
    assert (found.left_out, found.absent) == (["x", "delay", "x"], [])
    assert lay_out(described(), ["id"]).absent == ["price"]


@pytest.mark.parametrize("names, told", [(["price"], "lacks id"), (["id", "id"], "repeats id"), ([], "lacks id")])
def test_a_header_that_cannot_do_is_refused(names: list[str], told: str) -> None:
    with pytest.raises(FileRefused, match=told):
        lay_out(described(), names)
