"""Prepares the raw files of a dataset version again with this code, and holds the rows against the stored parts.

`python -m etl.recheck --pipeline DIR --manifest FILE --parts DIR --raw DIR --out DIR --report OUT.json`: a check that a
change of this service, or of what it shares with others, brings along for itself. It needs the files alone. The new
parts and their manifest stay in `--out`, for whoever trains on them.
"""

import argparse
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

import etl
from esteira.dataset import ENTITY, EVENT_TIME, LINE, Manifest, Part, decode_manifest, encode_manifest
from esteira.exceptions import PermanentError
from esteira.pipeline import load_pipeline
from esteira.schema import quote
from etl.attempt import BATCH_LINES
from etl.manifests import next_manifest
from etl.parts import Source, encode_part
from etl.prepare import Preparation
from etl.records import Records
from etl.source import check_header, unpack
from etl.workbench import Workbench

SHOWN = 20
_MAX_BYTES = 512 << 20
"""The service took each file once, whatever its limit was then."""
_PRESENT = "rows"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One column whose values differ, or rows that are there on one side only, in one part."""

    object: str
    column: str
    """A column, or `rows` for rows that are accepted now and were not, or the other way round."""
    rows: int
    examples: list[dict[str, Any]]
    """The first of them: line, entity, expected, got."""


class Unchecked(msgspec.Struct, frozen=True, kw_only=True):
    """A part that could not be held against its raw file."""

    part: str
    object: str | None
    reason: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the recheck showed."""

    pipeline: str
    dataset: str
    parts: int
    rows: int
    rows_differing: int
    """The most that any column differs in, summed over parts."""
    features_added: list[str]
    features_removed: list[str]
    differences: list[Difference]
    refused: list[Unchecked]
    """Parts whose raw file this code refuses whole."""
    unchecked: list[Unchecked]
    """Parts whose raw file is no longer there."""
    code: str

    @property
    def passed(self) -> bool:
        """Whether this code makes the very same rows."""
        return not (self.differences or self.refused or self.features_added or self.features_removed)


class Recheck:
    """Goes through the parts of one manifest, oldest first, as the files came."""

    def __init__(self, workbench: Workbench, manifest: Manifest, parts: Path, raw: Path, out: Path) -> None:
        self._workbench = workbench
        self._manifest = manifest
        self._parts, self._raw, self._out = parts, raw, out
        self._known: dict[str, str] = {}
        self._made: Manifest | None = None
        self._differences: list[Difference] = []
        self._refused: list[Unchecked] = []
        self._unchecked: list[Unchecked] = []

    def run(self) -> Report:
        """Prepares every part again, and writes those that could be."""
        for part in self._manifest.parts:
            stored = pq.read_table(io.BytesIO((self._parts / f"{part.sha256}.parquet").read_bytes()))
            self._check(part, stored)
            self._known |= dict.fromkeys(stored[ENTITY].to_pylist(), part.object or part.path)
        if self._made is not None:
            (self._out / "manifest.json").write_bytes(encode_manifest(self._made))
        return self._report()

    def _report(self) -> Report:
        was = [feature.name for feature in self._manifest.features]
        now = [feature.name for feature in self._workbench.statement.features]
        most: dict[str, int] = {}
        for found in self._differences:
            most[found.object] = max(most.get(found.object, 0), found.rows)
        return Report(
            pipeline=self._manifest.pipeline,
            dataset=self._manifest.version,
            parts=len(self._manifest.parts),
            rows=self._manifest.rows,
            rows_differing=sum(most.values()),
            features_added=[name for name in now if name not in was],
            features_removed=[name for name in was if name not in now],
            differences=self._differences,
            refused=self._refused,
            unchecked=self._unchecked,
            code=str(Path(etl.__file__).parent),
        )

    def _check(self, part: Part, stored: pa.Table) -> None:
        file = self._raw / part.sha256
        if part.object is None or not file.is_file():
            reason = "the manifest names no raw file" if part.object is None else "its raw file is no longer there"
            self._unchecked.append(Unchecked(part=part.path, object=part.object, reason=reason))
            return
        try:
            made = self._prepare(part.object, file.read_bytes())
        except PermanentError as error:
            self._refused.append(Unchecked(part=part.path, object=part.object, reason=str(error)))
            return
        self._differences += compare(part.object, stored, made, additions=not self._manifest.left_out)
        self._write(part, made)

    def _prepare(self, name: str, raw: bytes) -> pa.Table:
        data = unpack(name, raw, _MAX_BYTES)
        names = check_header(data, self._workbench.pipeline.columns)
        with self._workbench.cursor() as cursor:
            preparation = Preparation(self._workbench, cursor, names)
            for batch in Records(data).batches(len(names), BATCH_LINES):
                preparation.add(batch)
            preparation.refuse_long_keys()
            preparation.refuse_repeated()
            keys = preparation.keys()
            preparation.refuse_known({key: self._known[key] for key in keys if key in self._known})
            return preparation.features()

    def _write(self, part: Part, table: pa.Table) -> None:
        source = Source(ingestion_id=part.ingestion_id, object=part.object, generation=part.generation)
        made, data = encode_part(table, self._manifest.pipeline, source)
        (self._out / f"{made.sha256}.parquet").write_bytes(data)
        statement = self._workbench.statement
        created_at = self._manifest.created_at
        self._made = next_manifest(self._made, self._manifest.pipeline, statement, made, created_at)


def compare(name: str, stored: pa.Table, made: pa.Table, *, additions: bool = True) -> Iterator[Difference]:
    """Compares two tables of one part by line: rows on one side only, then each column that both have.

    Args:
        name: of the raw file.
        additions: whether a row counts that was not accepted before; rows of parts that were left out refused some.
    """
    with duckdb.connect(":memory:", config={"threads": 2}) as connection:
        connection.register("was", _without_zone(stored))
        connection.register("now", _without_zone(made))
        kind = "FULL" if additions else "LEFT"
        joined = f"FROM was w {kind} JOIN now n ON w.{LINE} = n.{LINE}"
        connection.execute(f"CREATE TABLE pairs AS SELECT w AS w, n AS n {joined}")
        alone = f"(w.{LINE} IS NULL) <> (n.{LINE} IS NULL)"
        yield from _found(connection, name, _PRESENT, alone, f"w.{LINE} IS NOT NULL", f"n.{LINE} IS NOT NULL")
        shared = [column for column in stored.column_names if column in made.column_names and column != LINE]
        for column in shared:
            was, now = f"w.{quote(column)}", f"n.{quote(column)}"
            if stored.schema.field(column).type != made.schema.field(column).type:
                was, now = f"CAST({was} AS VARCHAR)", f"CAST({now} AS VARCHAR)"
            both = f"w.{LINE} IS NOT NULL AND n.{LINE} IS NOT NULL"
            yield from _found(connection, name, column, f"{both} AND {was} IS DISTINCT FROM {now}", was, now)


def _found(
    connection: duckdb.DuckDBPyConnection, name: str, column: str, condition: str, was: str, now: str
) -> Iterator[Difference]:
    (rows,) = connection.execute(f"SELECT count(*) FROM pairs WHERE {condition}").fetchall()[0]  # noqa: S608
    if not rows:
        return
    line, entity = f"coalesce(w.{LINE}, n.{LINE})", f"coalesce(w.{ENTITY}, n.{ENTITY})"
    query = f"SELECT {line}, {entity}, {was}, {now} FROM pairs WHERE {condition} ORDER BY 1 LIMIT {SHOWN}"  # noqa: S608
    examples = [
        dict(zip(("line", "entity", "expected", "got"), row, strict=True))
        for row in connection.execute(query).fetchall()
    ]
    yield Difference(object=name, column=column, rows=rows, examples=examples)


def _without_zone(table: pa.Table) -> pa.Table:
    position = table.schema.get_field_index(EVENT_TIME)
    times = table.column(position).cast(pa.timestamp("us", tz="UTC")).cast(pa.timestamp("us"))
    return table.set_column(position, EVENT_TIME, times)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, prepares and compares, and writes the report; that rows differ is no failure of it."""
    parser = argparse.ArgumentParser(prog="python -m etl.recheck", description=__doc__)
    parser.add_argument("--pipeline", type=Path, required=True, help="the pipeline's folder")
    parser.add_argument("--manifest", type=Path, required=True, help="of the dataset version")
    parser.add_argument("--parts", type=Path, required=True, help="holds <sha256>.parquet for each part")
    parser.add_argument("--raw", type=Path, required=True, help="holds the raw file of each part under its sha256")
    parser.add_argument("--out", type=Path, required=True, help="where the new parts and their manifest go")
    parser.add_argument("--report", type=Path, required=True, help="where to write the report, as JSON")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    workbench = Workbench(load_pipeline(given.pipeline))
    manifest = decode_manifest(given.manifest.read_bytes())
    report = Recheck(workbench, manifest, given.parts, given.raw, given.out).run()
    workbench.close()
    given.report.write_bytes(msgspec.json.encode({"passed": report.passed, **msgspec.to_builtins(report)}))


if __name__ == "__main__":
    main()
