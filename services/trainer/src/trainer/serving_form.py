"""The SQLite form of features.sql that a release may carry, proved equal to DuckDB's before it does.

Etl held it against DuckDB for each row of each part. Here it is held once more over the release's own reference tables
and over rows that look for a difference: missing values, bounds, zeros and odd texts, alone in a real row and mixed.
"""

import itertools
import logging
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from esteira.dataset import Manifest
from esteira.exceptions import BadInput, PipelineInvalid
from esteira.features import FeatureQuery, create_references
from esteira.pipeline import LoadedPipeline
from esteira.release import REFERENCE, FeatureForm, Release
from esteira.schema import Column, Value, check_row
from esteira.scoring import Encoder
from esteira.sqlite_form import NotTranslatable, copy_references, form_sha256, translate
from esteira.sqlite_json import JsonQuery
from esteira.sqlite_query import Undecided, bounds, connect, opener
from esteira.statement import Statement

logger = logging.getLogger(__name__)

MIXED_ROWS = 300
CHUNK = 200
_TEXTS = ("", " ", "0", "1", "-1", "1e3", "NaN", "null", "A", "a", "é", "É", "ß", "日本", "%", "_", "'", "a\tb", "true")
_MOMENTS = ("1700-01-01T00:00:00", "1970-01-01T00:00:00", "2000-02-29T23:59:59.999999", "2199-12-31T12:30:00.5")

Rows = list[tuple[Value, ...]]


def write_form(folder: Path, pipeline: LoadedPipeline, statement: Statement, manifest: Manifest) -> FeatureForm:
    """Writes reference.sqlite where every part of the dataset was proved; says why not where it was not."""
    columns = [column for column in pipeline.columns if column.known == "before"]
    try:
        form = translate(statement.sql, columns)
        _require_proof(manifest, form)
        _write_references(folder, pipeline, statement)
    except NotTranslatable as error:
        (folder / REFERENCE).unlink(missing_ok=True)
        return FeatureForm(reason=str(error))
    return FeatureForm(dialect="sqlite", statement=form, rows=manifest.rows)


def _require_proof(manifest: Manifest, form: str) -> None:
    wanted = form_sha256(form)
    unproved = sum(part.sqlite_sha256 != wanted for part in manifest.parts)
    if unproved:
        raise NotTranslatable(f"{unproved} of {len(manifest.parts)} parts of the dataset are not proved for it")


def _write_references(folder: Path, pipeline: LoadedPipeline, statement: Statement) -> None:
    target = connect(str(folder / REFERENCE))
    try:
        with duckdb.connect(":memory:", config={"threads": 1}) as connection:
            create_references(connection, pipeline.folder, pipeline.spec.reference)
            copy_references(connection, pipeline.spec.reference, statement.sql, target)
        target.execute("VACUUM")
    finally:
        target.close()


def prove_form(folder: Path, release: Release, form: FeatureForm) -> FeatureForm:
    """Holds the form in the release's folder against DuckDB over stress rows.

    Returns:
        The form with the number of rows for which both gave the same; without a statement where they did not.
    """
    if form.statement is None:
        return form
    try:
        wanted = [feature.name for feature in release.features]
        single = JsonQuery(form.statement, release.columns, opener(folder / REFERENCE), wanted)
        count = _compare(folder, release, single)
    except (Undecided, _Different) as error:
        (folder / REFERENCE).unlink()
        logger.warning("SQLite form not released", extra={"pipeline": release.pipeline, "reason": str(error)})
        return FeatureForm(reason=str(error))
    return msgspec.structs.replace(form, stress_rows=count)


class _Different(Exception):
    """The two forms part."""


def _compare(folder: Path, release: Release, single: JsonQuery) -> int:
    """The number of rows that SQLite answered, each as DuckDB did."""
    encoder = Encoder(release.features)
    query = FeatureQuery(release.statement, release.columns, {n: folder / f for n, f in release.reference.items()})
    count, rows = 0, stress_rows(release)
    try:
        while chunk := list(itertools.islice(rows, CHUNK)):
            answered = list(_answered(single, chunk))
            for (row, values), expected in zip(answered, _in_duckdb(query, release, answered), strict=True):
                found = _in_order(release, single.names, values)
                if not _same(encoder, found, expected):
                    raise _Different(f"SQLite gives {found} and DuckDB {expected} for {row}")
                if (told := single.run_json([row])) and not _same(encoder, msgspec.json.decode(told)[0], found):
                    raise _Different(f"SQLite gives {told.decode()} in native code, and {found} in Python, for {row}")
            count += len(answered)
    finally:
        query.close()
    return count


def _answered(single: JsonQuery, rows: Rows) -> Iterator[tuple[tuple[Value, ...], tuple[Any, ...]]]:
    """The rows that SQLite does not leave to DuckDB, with what it gives."""
    for row in rows:
        with suppress(Undecided):
            yield row, single.run_rows([row])[0]


def _in_duckdb(query: FeatureQuery, release: Release, answered: Sequence[tuple[Any, Any]]) -> Iterator[list[Any]]:
    """What DuckDB gives for them all at once, or else one by one, to name the row that it refuses."""
    if not answered:
        return
    try:
        names, found = query.run_rows([row for row, _ in answered])
    except (BadInput, PipelineInvalid):
        for row, _ in answered:
            try:
                names, (values,) = query.run_rows([row])
            except (BadInput, PipelineInvalid) as error:
                raise _Different(f"SQLite answers where DuckDB refuses {row}: {error}") from error
            yield _in_order(release, names, values)
        return
    yield from (_in_order(release, names, values) for values in found)


def _same(encoder: Encoder, found: list[Any], expected: list[Any]) -> bool:
    """Bit by bit in the model's matrix; texts as they are, also those that are no category."""
    left, right = (encoder.encode_rows([values]).view("int64") for values in (found, expected))
    texts = [[value for value in values if isinstance(value, str)] for values in (found, expected)]
    return bool((left == right).all()) and texts[0] == texts[1]


def _in_order(release: Release, names: Sequence[str], values: Sequence[Any]) -> list[Any]:
    return [values[names.index(feature.name)] for feature in release.features]


def stress_rows(release: Release) -> Iterator[tuple[Value, ...]]:
    """Rows that a request may hold: each example with one odd value at a time, then odd and real values mixed."""
    columns = [column for column in release.columns if column.known == "before"]
    real: Rows = [tuple(check_row(columns, row, "")[0].values()) for row in release.example]
    odd = [list(_odd_values(column, [row[at] for row in real])) for at, column in enumerate(columns)]
    yield from real
    for row, at in itertools.product(real[:1], range(len(columns))):
        yield from ((*row[:at], value, *row[at + 1 :]) for value in odd[at])
    chance = random.Random(release.seed)  # noqa: S311  the same rows for the same release
    for _ in range(MIXED_ROWS if real else 0):
        yield tuple(
            chance.choice(values) if chance.random() < 0.5 else row[at]
            for row in [chance.choice(real)]
            for at, values in enumerate(odd)
        )


def _odd_values(column: Column, real: list[Value]) -> Iterator[Value]:
    yield from dict.fromkeys(real)
    if column.nullable:
        yield None
    if column.type in ("integer", "number"):
        yield from _odd_numbers(column)
    elif column.type == "boolean":
        yield from (True, False)
    elif column.type == "string":
        texts = column.values if column.values is not None else [*_TEXTS, "x" * column.max_length]
        yield from (text for text in texts if len(text) <= column.max_length)
    elif column.type == "timestamp":
        yield from (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in _MOMENTS)
    else:
        yield from (date.fromisoformat(text[:10]) for text in _MOMENTS)


def _odd_numbers(column: Column) -> Iterator[Value]:
    low, high = bounds(column)
    if column.type == "integer":
        within = (math.ceil(low), math.floor(high))
        yield from (n for n in dict.fromkeys((*within, within[0] + 1, -7, -1, 0, 1, 2, 59, 100)) if low <= n <= high)
    else:
        yield from (
            n for n in dict.fromkeys((low, high, -7.5, -0.5, 0.0, 0.1, 0.5, 1.0, 2.5, 1e-300)) if low <= n <= high
        )
