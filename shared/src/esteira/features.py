"""Runs a compiled features.sql in DuckDB, over a table of raw rows or over the rows of one request."""

import csv
import gzip
import re
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import duckdb

from esteira.exceptions import BadInput, PipelineInvalid, Problem
from esteira.schema import DUCKDB_TYPES, Column, Row, Value, quote

_OF_ROWS = (duckdb.DataError, duckdb.InvalidInputException, duckdb.NotImplementedException)
"""What DuckDB raises for values: of a cast, of `strptime`, of an unknown time zone."""
_OF_STATEMENTS = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)
"""Their messages hold no values of rows, as those of others may: they are logged."""
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
        if path.suffix != ".parquet" and reference.columns:
            _check_header(path, list(reference.columns))
        try:
            connection.execute(f"CREATE TABLE {quote(name)} AS FROM {_reader(path, reference.columns)}")
            _settle_integers(connection, name, path, reference.columns)
        except duckdb.Error as error:
            line = re.search(r"CSV Error on Line: (\d+)", str(error))
            place = f"{path}:{line[1]}" if line else str(path)
            why = re.search(r"^(Error when|Expected Number|Invalid unicode|Value with).*", str(error), re.MULTILINE)
            what = why[0] if why else str(error).splitlines()[0]
            raise PipelineInvalid(f"{place}: {what}; mend the file or its declared columns") from error


def _check_header(path: Path, declared: list[str]) -> None:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            found = next(csv.reader(file), [])
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise PipelineInvalid(f"{path}:1: not readable as CSV in UTF-8: {error}; mend the file") from error
    if found != declared:
        names = ", ".join(found) or "no columns"
        raise PipelineInvalid(f"{path}:1: has {names}; declared are {', '.join(declared)}: make them equal")


def _reader(path: Path, columns: Mapping[str, str]) -> str:
    if path.suffix == ".parquet":
        return f"read_parquet({_literal(path)})"
    types = ", ".join(f"{_literal(name)}: {_literal(_CSV_TYPES[kind])}" for name, kind in columns.items())
    given = f", auto_detect = false, columns = {{{types}}}" if types else ""
    return f"read_csv({_literal(path)}, header = true, nullstr = ['', 'NA'], delim = ',', quote = '\"'{given})"


_CSV_TYPES = {**DUCKDB_TYPES, "integer": "VARCHAR"}
"""An integer is read as text first: DuckDB's reader would round 2.5 and say nothing."""


def _settle_integers(connection: duckdb.DuckDBPyConnection, table: str, path: Path, columns: Mapping[str, str]) -> None:
    """Turns the columns declared as integers into such, where each of their values is one."""
    if path.suffix == ".parquet":
        return
    for name in (name for name, kind in columns.items() if kind == "integer"):
        text = f"trim({quote(name)})"
        wrong = f"SELECT rowid + 2, {text} FROM {quote(table)} WHERE NOT regexp_full_match({text}, '[+-]?[0-9]+')"  # noqa: S608
        found = connection.execute(f"{wrong} ORDER BY rowid LIMIT 1").fetchone()
        if found:
            raise PipelineInvalid(
                f"{path}:{found[0]}: {name} is {found[1]!r}, declared integer; mend the value or declare a number"
            )
        connection.execute(f"ALTER TABLE {quote(table)} ALTER {quote(name)} TYPE BIGINT")


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

        Raises:
            PipelineInvalid: a reference table cannot be read.
        """
        self._columns = [column for column in columns if column.known == "before"]
        self._connection = duckdb.connect(":memory:", config={"threads": 1, "enable_external_access": True})
        try:
            for name, path in references.items():
                self._connection.execute(f"CREATE TABLE {quote(name)} AS FROM read_parquet({_literal(path)})")
        except duckdb.Error as error:
            raise PipelineInvalid(f"a reference table cannot be read: {error}") from error
        self._connection.execute("SET enable_external_access = false")
        self._sql = self._over_parameters(statement)
        self._local = threading.local()

    def _over_parameters(self, statement: str) -> str:
        """Reads `raw` from one list parameter for each column, so that values are never part of the SQL."""
        lists = [f"unnest(?::{DUCKDB_TYPES[c.type]}[]) AS {quote(c.name)}" for c in self._columns]
        lists.append(f"unnest(?::BIGINT[]) AS {ROW}")
        return f"WITH raw AS (SELECT {', '.join(lists)}) SELECT * FROM ({statement}\n) ORDER BY {ROW}"  # noqa: S608

    def run(self, rows: Sequence[Row]) -> dict[str, list[Any]]:
        """Gives each feature's values, in the order of `rows` as `esteira.schema.check_row` types them.

        Raises:
            BadInput: the statement cannot compute a value, such as a cast of a text that is no number; says which.
            PipelineInvalid: says no value: the statement does not run, or gave more or fewer rows than it was given.
        """
        names, found = self.run_rows([tuple(row.get(c.name) for c in self._columns) for row in rows])
        columns = zip(*found, strict=True) if found else [() for _ in names]
        return {name: list(values) for name, values in zip(names, columns, strict=True) if name != ROW}

    def run_rows(self, rows: Sequence[Sequence[Value]]) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Gives the names that the statement yields, `_row` among them, and a tuple of values for each row.

        Args:
            rows: typed values in the order of the columns.

        Raises:
            BadInput, PipelineInvalid: as `run`.
        """
        parameters: list[list[Any]] = [[_plain(row[at]) for row in rows] for at in range(len(self._columns))]
        parameters.append(list(range(len(rows))))
        try:
            cursor = self._cursor().execute(self._sql, parameters)
            names = [described[0] for described in cursor.description]
            found = cursor.fetchall()
        except _OF_ROWS as error:
            what = str(error).splitlines()[0]
            raise BadInput([Problem("rows", f"features.sql cannot compute a feature of them: {what}")]) from error
        except duckdb.Error as error:
            what = f": {str(error).splitlines()[0]}" if isinstance(error, _OF_STATEMENTS) else ""
            raise PipelineInvalid(f"features.sql does not run: {type(error).__name__}{what}") from error
        if len(found) != len(rows):
            raise PipelineInvalid(
                f"features.sql gave {len(found)} rows for {len(rows)}; a join must match one row at most"
            )
        return names, found

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
