"""One file on the workbench: from records to accepted rows with their features, and the refused rows with reasons."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

from esteira.dataset import ENTITY, EVENT_TIME, LABEL, LINE
from esteira.exceptions import PipelineInvalid
from esteira.features import ROW
from esteira.schema import MAX_KEY_BYTES, Column, entity_key_sql, missing, quote, show
from esteira.statement import FeatureColumn
from etl.records import Batch
from etl.validate import check_sql, reason_name
from etl.workbench import Workbench

SAMPLE_ROWS = 20


class Reason(msgspec.Struct, frozen=True):
    """Why a row is refused."""

    kind: str
    """Without the row's own values, to be counted."""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}{self.detail}"


class Refusal(msgspec.Struct, frozen=True):
    """A refused row."""

    line: int
    reasons: list[Reason]


class Preparation:
    """The tables of one file: `_checked` holds the typed rows that are accepted so far."""

    def __init__(self, workbench: Workbench, cursor: duckdb.DuckDBPyConnection, names: list[str]) -> None:
        self._pipeline = workbench.pipeline
        self._statement = workbench.statement
        self._serving_form = workbench.serving_form
        self._columns = workbench.pipeline.columns
        self._cursor = cursor
        self._names = names
        self._create_checked()

    def _create_checked(self) -> None:
        empty = pa.table({name: pa.array([], pa.string()) for name in self._names} | {LINE: pa.array([], pa.int64())})
        self._check_batch(empty)
        self._cursor.execute(f"CREATE TEMP TABLE _checked AS SELECT {self._accepted()} FROM _outcome LIMIT 0")  # noqa: S608

    def _accepted(self) -> str:
        columns = ", ".join(quote(column.name) for column in self._columns)
        return f"{LINE}, {entity_key_sql(self._pipeline.entity_columns)} AS {ENTITY}, {columns}"

    def _check_batch(self, texts: pa.Table) -> None:
        self._cursor.register("texts_of_batch", texts)
        check = check_sql(self._columns, self._pipeline.spec.null_values, "texts_of_batch")
        self._cursor.execute(f"CREATE OR REPLACE TEMP TABLE _outcome AS {check}")
        self._cursor.unregister("texts_of_batch")

    def add(self, batch: Batch) -> list[Refusal]:
        """Checks a batch; returns the malformed and the refused rows."""
        malformed = [Refusal(bad.line, [Reason(f"line: {bad.reason}")]) for bad in batch.malformed]
        if not batch.rows:
            return malformed
        self._check_batch(_texts(self._names, batch))
        reasons = [reason_name(position) for position in range(len(self._columns))]
        bad = " OR ".join(f"{name} IS NOT NULL" for name in reasons)
        self._cursor.execute(f"INSERT INTO _checked SELECT {self._accepted()} FROM _outcome WHERE NOT ({bad})")  # noqa: S608
        found = self._cursor.execute(f"SELECT {LINE}, {', '.join(reasons)} FROM _outcome WHERE {bad}").fetchall()  # noqa: S608
        return malformed + self._refusals(batch, found)

    def _refusals(self, batch: Batch, found: list[tuple[Any, ...]]) -> list[Refusal]:
        positions = {line: position for position, line in enumerate(batch.lines)}
        place = {name: index for index, name in enumerate(self._names)}
        return [
            Refusal(
                line,
                [
                    _reason(column, what, batch.rows[positions[line]][place[column.name]])
                    for column, what in zip(self._columns, whats, strict=True)
                    if what is not None
                ],
            )
            for line, *whats in found
        ]

    def refuse_long_keys(self) -> list[Refusal]:
        """Takes out every row whose key no index of Postgres holds."""
        self._cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE _long AS SELECT {LINE} FROM _checked "  # noqa: S608
            f"WHERE strlen({ENTITY}) > {MAX_KEY_BYTES}"
        )
        self._take_out("_long")
        reason = Reason(f"entity key: longer than {MAX_KEY_BYTES} bytes")
        return [Refusal(line, [reason]) for (line,) in self._cursor.execute("FROM _long").fetchall()]

    def refuse_repeated(self) -> list[Refusal]:
        """Takes out every row whose key an earlier line has."""
        self._cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE _repeated AS SELECT {LINE}, {ENTITY}, first FROM "  # noqa: S608
            f"(SELECT {LINE}, {ENTITY}, min({LINE}) OVER (PARTITION BY {ENTITY}) AS first FROM _checked) "
            f"WHERE {LINE} <> first"
        )
        self._take_out("_repeated")
        found = self._cursor.execute("FROM _repeated").fetchall()
        return [Refusal(line, [_duplicate(key, f"the key of line {first}")]) for line, key, first in found]

    def keys(self) -> list[str]:
        """The entity keys of the rows accepted so far."""
        return [key for (key,) in self._cursor.execute(f"SELECT {ENTITY} FROM _checked").fetchall()]  # noqa: S608

    def refuse_known(self, known: Mapping[str, str]) -> list[Refusal]:
        """Takes out every row whose key is in `known`, which says from which object it was ingested."""
        if not known:
            return []
        self._cursor.register("known_keys", pa.table({"key": list(known)}))
        self._cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE _known AS SELECT {LINE}, {ENTITY} FROM _checked "  # noqa: S608
            f"WHERE {ENTITY} IN (SELECT key FROM known_keys)"
        )
        self._cursor.unregister("known_keys")
        self._take_out("_known")
        found = self._cursor.execute("FROM _known").fetchall()
        return [Refusal(line, [_duplicate(key, f"already ingested from {known[key]}")]) for line, key in found]

    def _take_out(self, table: str) -> None:
        self._cursor.execute(f"DELETE FROM _checked WHERE {LINE} IN (SELECT {LINE} FROM {table})")  # noqa: S608

    def rows(self) -> int:
        """How many rows are accepted so far."""
        return int(self._one("SELECT count(*) FROM _checked"))

    def features(self) -> pa.Table:
        """Runs features.sql and the label over the accepted rows.

        Returns:
            A row for each accepted row, in the file's order, with the columns of `esteira.dataset.Part`.

        Raises:
            PipelineInvalid: the statement fails, is not row-local, or does not give one row for each row.
        """
        try:
            self._create_raw()
            self._run_statement()
            self._check_rows()
            self._check_row_locality()
            return self._part()
        except duckdb.Error as error:
            what = str(error).split("\n\n")[0].replace("\n", " ")
            raise PipelineInvalid(f"{self._pipeline.folder.name}: {what}; mend features.sql or the label") from error

    def proved_form(self, part: pa.Table) -> str | None:
        """The sha256 of the SQLite form of features.sql, if that gives all features of the part too.

        Args:
            part: what `features` gave.
        """
        form = self._serving_form
        return form.sha256 if form is not None and form.is_proved(self._cursor, part) else None

    def _create_raw(self) -> None:
        before = ", ".join(quote(column.name) for column in self._columns if column.known == "before")
        self._cursor.execute(f"CREATE OR REPLACE TEMP TABLE raw AS SELECT {before}, {LINE} AS {ROW} FROM _checked")  # noqa: S608

    def _run_statement(self) -> None:
        self._cursor.execute(f"CREATE OR REPLACE TEMP TABLE _features AS {self._statement.sql}")

    def _check_rows(self) -> None:
        expected = self.rows()
        ((found, distinct),) = self._cursor.execute(f"SELECT count(*), count(DISTINCT {ROW}) FROM _features").fetchall()  # noqa: S608
        if not expected == found == distinct:
            raise PipelineInvalid(
                f"{self._pipeline.folder.name}/features.sql gave {found} rows for {expected}; "
                "LEFT JOIN on a unique key, so that each row matches at most one"
            )

    def _check_row_locality(self) -> None:
        """Holds the whole batch against single rows; NaN equals NaN."""
        lines = self._cursor.execute(f"SELECT {ROW} FROM raw ORDER BY {ROW}").fetchall()  # noqa: S608
        step = max(1, len(lines) // SAMPLE_ROWS)
        alone = f"WITH raw AS (SELECT * FROM temp.raw WHERE {ROW} = ?) SELECT * FROM ({self._statement.sql}\n)"  # noqa: S608
        for (line,) in lines[::step][:SAMPLE_ROWS]:
            whole = self._cursor.execute(f"SELECT * FROM _features WHERE {ROW} = ?", [line]).fetchall()  # noqa: S608
            single = self._cursor.execute(alone, [line]).fetchall()
            self._compare(line, whole, single)

    def _compare(self, line: int, whole: list[tuple[Any, ...]], single: list[tuple[Any, ...]]) -> None:
        if len(single) != 1:
            raise self._not_row_local(f"line {line} alone gives {len(single)} rows")
        names = [ROW, *(feature.name for feature in self._statement.features)]
        for name, left, right in zip(names, whole[0], single[0], strict=True):
            if not _same(left, right):
                raise self._not_row_local(f"{name} of line {line} is {left!r} in the file and {right!r} alone")

    def _not_row_local(self, what: str) -> PipelineInvalid:
        return PipelineInvalid(
            f"{self._pipeline.folder.name}/features.sql is not row-local: {what}; "
            "let each feature depend on its own row and the reference tables alone"
        )

    def _part(self) -> pa.Table:
        event_time = self._pipeline.spec.event_time
        selected = [
            f"c.{ENTITY}",
            f"{'c.' + quote(event_time) if event_time else 'NULL::TIMESTAMP'} AS {EVENT_TIME}",
            f"l.{LABEL}",
            f"c.{LINE}",
            *(_feature(feature) for feature in self._statement.features),
        ]
        label = _finite(f"CAST(({self._pipeline.spec.label.sql}\n) AS DOUBLE)")
        query = (
            f"SELECT {', '.join(selected)} FROM _checked c "  # noqa: S608
            f"JOIN (SELECT {LINE}, {label} AS {LABEL} FROM _checked) l USING ({LINE}) "
            f"JOIN _features f ON f.{ROW} = c.{LINE} ORDER BY c.{LINE}"
        )
        return _in_utc(self._cursor.sql(query).to_arrow_table())

    def _one(self, query: str) -> Any:
        (row,) = self._cursor.execute(query).fetchall()
        return row[0]


def count_reasons(refusals: Iterable[Refusal]) -> dict[str, int]:
    """How many rows have each kind of reason, most frequent first."""
    counts: dict[str, int] = {}
    for refusal in refusals:
        for kind in {reason.kind for reason in refusal.reasons}:
            counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _texts(names: list[str], batch: Batch) -> pa.Table:
    columns = zip(*batch.rows, strict=True)
    texts = {name: pa.array(column, pa.string()) for name, column in zip(names, columns, strict=True)}
    return pa.table(texts | {LINE: pa.array(batch.lines, pa.int64())})


def _reason(column: Column, what: str, value: str) -> Reason:
    detail = "" if what == missing(column) else f", got {show(value)}"
    return Reason(f"{column.name}: {what}", detail)


def _duplicate(key: str, what: str) -> Reason:
    return Reason("duplicate key", f" {key!r}: {what}")


def _feature(feature: FeatureColumn) -> str:
    name = quote(feature.name)
    value = _finite(f"CAST(f.{name} AS DOUBLE)") if feature.kind == "numeric" else f"CAST(f.{name} AS VARCHAR)"
    return f"{value} AS {name}"


def _finite(value: str) -> str:
    return f"CASE WHEN isfinite({value}) THEN {value} END"


def _same(left: object, right: object) -> bool:
    both_nan = isinstance(left, float) and isinstance(right, float) and math.isnan(left) and math.isnan(right)
    return both_nan or left == right


def _in_utc(table: pa.Table) -> pa.Table:
    """DuckDB's timestamps have no zone; ours are in UTC."""
    position = table.schema.get_field_index(EVENT_TIME)
    times = table.column(position).cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
    return table.set_column(position, EVENT_TIME, times)
