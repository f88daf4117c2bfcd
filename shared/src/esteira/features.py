"""Runs a compiled features.sql in DuckDB, over a table of raw rows or over the rows of one request."""

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import duckdb

from esteira.exceptions import PipelineInvalid
from esteira.schema import DUCKDB_TYPES, Column, Row, Value, quote

ROW = "_row"
"""The column that carries a row's position through the statement."""


class ReferenceFile(Protocol):
    """A lookup table: see `esteira.pipeline.Reference`."""

    @property
    def file(self) -> str: ...
    @property
    def columns(self) -> Mapping[str, str]: ...


def create_references(
    connection: duckdb.DuckDBPyConnection, folder: Path, references: Mapping[str, ReferenceFile]
) -> None:
    """Loads each reference table of the pipeline in `folder` under its name.

    Raises:
        PipelineInvalid: a file is not what its declaration says.
    """
    for name, reference in references.items():
        path = folder / reference.file
        try:
            connection.execute(f"CREATE TABLE {quote(name)} AS FROM {_reader(path, reference.columns)}")
        except duckdb.Error as error:
            raise PipelineInvalid(
                f"{path}: {str(error).splitlines()[0]}; mend the file or its declared columns"
            ) from error


def _reader(path: Path, columns: Mapping[str, str]) -> str:
    if path.suffix == ".parquet":
        return f"read_parquet({_literal(path)})"
    types = ", ".join(f"{_literal(name)}: {_literal(DUCKDB_TYPES[kind])}" for name, kind in columns.items())
    given = f", auto_detect = false, columns = {{{types}}}" if types else ""
    return f"read_csv({_literal(path)}, header = true, nullstr = ['', 'NA'], delim = ',', quote = '\"'{given})"


def _literal(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"


class FeatureQuery:
    """A compiled statement with its reference tables, ready for the rows of requests. Safe to share by threads."""

    def __init__(self, statement: str, columns: Sequence[Column], references: Mapping[str, Path]) -> None:
        """Loads the reference tables.

        Args:
            statement: as `esteira.statement.compile_statement` gives it.
            columns: the raw columns of a request, in the order of use.
            references: the Parquet file of each reference table.
        """
        self._columns = [column for column in columns if column.known == "before"]
        self._connection = duckdb.connect(":memory:", config={"threads": 1, "enable_external_access": True})
        for name, path in references.items():
            self._connection.execute(f"CREATE TABLE {quote(name)} AS FROM read_parquet({_literal(path)})")
        self._connection.execute("SET enable_external_access = false")
        self._sql = self._over_parameters(statement)
        self._local = threading.local()

    def _over_parameters(self, statement: str) -> str:
        """Reads `raw` from one list parameter for each column, so that values are never part of the SQL."""
        lists = [f"unnest(?::{DUCKDB_TYPES[c.type]}[]) AS {quote(c.name)}" for c in self._columns]
        lists.append(f"unnest(?::BIGINT[]) AS {ROW}")
        return f"WITH raw AS (SELECT {', '.join(lists)}) SELECT * FROM ({statement}\n) ORDER BY {ROW}"  # noqa: S608

    def run(self, rows: Sequence[Row]) -> dict[str, list[Any]]:
        """Gives each feature's values, in the order of `rows` as `esteira.schema.check_row` types them."""
        parameters: list[list[Any]] = [[_plain(row.get(c.name)) for row in rows] for c in self._columns]
        parameters.append(list(range(len(rows))))
        cursor = self._cursor().execute(self._sql, parameters)
        names = [described[0] for described in cursor.description]
        found = cursor.fetchall()
        if len(found) != len(rows):
            raise PipelineInvalid(
                f"features.sql gave {len(found)} rows for {len(rows)}; a join must match one row at most"
            )
        columns = zip(*found, strict=True) if found else [() for _ in names]
        return {name: list(values) for name, values in zip(names, columns, strict=True) if name != ROW}

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        if not hasattr(self._local, "cursor"):
            self._local.cursor = self._connection.cursor()
        cursor: duckdb.DuckDBPyConnection = self._local.cursor
        return cursor

    def close(self) -> None:
        """Gives the memory back."""
        self._connection.close()


def _plain(value: Value) -> Value:
    """DuckDB's timestamps have no zone; ours are in UTC."""
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value
