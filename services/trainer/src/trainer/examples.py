"""Raw rows for a release to prove itself with: some that a file brought, and what training made of them."""

import csv
import gzip
import io
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pandas as pd

from esteira.dataset import ENTITY
from esteira.fields import from_text
from esteira.pipeline import LoadedPipeline
from esteira.release import Example
from esteira.schema import Column, check_row, entity_key

logger = logging.getLogger(__name__)

EXAMPLES = 5
LINES = 2000
_GZIP = b"\x1f\x8b"


class Examples(msgspec.Struct, frozen=True):
    """Raw rows as a request holds them, and the features that etl made of the same rows."""

    rows: list[Example]
    frame: pd.DataFrame


def find_examples(pipeline: LoadedPipeline, raw: bytes, frame: pd.DataFrame) -> Examples:
    """Takes the first few rows of a raw CSV file that are among the rows of `frame`.

    Features that serving makes of these rows can then be held against those that training saw.
    """
    positions = {key: position for position, key in enumerate(frame[ENTITY])}
    rows: list[Example] = []
    chosen: list[int] = []
    for row in _rows(pipeline, raw):
        typed, problems = check_row(pipeline.columns, row, "")
        if problems:
            continue
        position = positions.pop(entity_key(typed[column.name] for column in pipeline.entity_columns), None)
        if position is not None:
            rows.append(row)
            chosen.append(position)
        if len(rows) == EXAMPLES:
            break
    return Examples(rows, frame.iloc[chosen])


def _rows(pipeline: LoadedPipeline, raw: bytes) -> Iterator[Example]:
    text = io.TextIOWrapper(_unpacked(raw), encoding="utf-8-sig", errors="replace", newline="")
    columns = [column for column in pipeline.columns if column.known == "before"]
    try:
        for number, record in enumerate(csv.DictReader(text)):
            if number >= LINES:
                return
            yield _row(columns, record, pipeline.spec.null_values)
    except (csv.Error, OSError, EOFError) as error:
        logger.warning("raw file not read to its end", extra={"pipeline": pipeline.name, "error": str(error)})


def _unpacked(raw: bytes) -> Any:
    return gzip.GzipFile(fileobj=io.BytesIO(raw)) if raw.startswith(_GZIP) else io.BytesIO(raw)


def _row(columns: Sequence[Column], record: dict[str, Any], null_values: Sequence[str]) -> Example:
    row: Example = {}
    for column in columns:
        text = record.get(column.name)
        row[column.name] = None if text is None else from_text(column.type, text, null_values)
    return row
