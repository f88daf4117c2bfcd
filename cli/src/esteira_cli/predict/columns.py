"""The columns that a pipeline takes, as the predictor tells them, and where a file has them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from esteira.fields import NULL_VALUES
from esteira.schema import Column
from esteira_cli.predict.records import FileRefused


class PipelineColumns(msgspec.Struct, frozen=True):
    """What a row of a pipeline has before its label is known."""

    columns: list[Column]
    entity: list[Column]
    null_values: tuple[str, ...] = NULL_VALUES
    """Texts of a CSV file that mean a missing value."""

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> "PipelineColumns":
        """Reads the answer of `GET /pipelines/<name>`; what a newer predictor says besides is passed over."""
        found = [
            Column(name=told["name"], type=told["type"], nullable=told.get("nullable", False))
            for told in described["columns"]
            if told.get("known", "before") == "before"
        ]
        by_name = {column.name: column for column in found}
        entity = [by_name[name] for name in described["entity"]]
        return cls(found, entity, tuple(described.get("null_values", NULL_VALUES)))


class Layout(msgspec.Struct, frozen=True):
    """Where a file has the pipeline's columns."""

    places: list[tuple[int, Column]]
    """Position in the file, and the column there."""
    left_out: list[str]
    """Columns of the file that the pipeline does not take."""
    absent: list[str]
    """Columns of the pipeline that the file lacks, and may lack."""


def lay_out(columns: PipelineColumns, names: Sequence[str]) -> Layout:
    """Finds the pipeline's columns among those of a file.

    Raises:
        FileRefused: one that must have values is not there, or one is there twice.
    """
    expected = {column.name for column in columns.columns}
    repeated = sorted({name for name in names if name in expected and list(names).count(name) > 1})
    lacking = [column for column in columns.columns if column.name not in names]
    required = [column.name for column in lacking if not column.nullable]
    told = []
    if repeated:
        told.append(f"repeats {', '.join(repeated)}")
    if required:
        told.append(f"lacks {', '.join(required)}; every row needs a value there")
    if told and len(names) == 1 and len(expected) > 1:
        told.append("it has one column only: is the delimiter a comma?")
    if told:
        raise FileRefused(f"the header {'; '.join(told)}")
    places = [(list(names).index(column.name), column) for column in columns.columns if column.name in names]
    return Layout(places, [name for name in names if name not in expected], [column.name for column in lacking])


def from_value(column: Column, value: Any) -> Any:
    """A value of a Parquet file as the column takes it; the client says it in JSON."""
    if column.type == "date" and isinstance(value, datetime):
        return value.date() if value == value else None  # NaT is a datetime that is not itself
    return value
