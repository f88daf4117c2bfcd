"""Runs the SQLite form of features.sql: one row, a few microseconds.

Values are as `plain` makes them: times and dates are ISO text, which compares and joins as times do. The functions that
SQLite lacks, or has with another meaning, are given to it here. They raise where DuckDB might not give what they would;
`Undecided` then leaves the rows to DuckDB.
"""

import math
import sqlite3
import threading
from collections.abc import Callable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from esteira.exceptions import PipelineInvalid
from esteira.schema import Column, Value

ZERO_DIVISOR = "esteira_zero_divisor"
INTEGERS = 2**31
NUMBERS = 1e15
"""How large integers and numbers may be in which way; beyond lie overflows, where the dialects part."""
_CACHED = 16


class Undecided(Exception):
    """These rows are DuckDB's to answer."""


def plain(value: Any) -> Any:
    """A typed value as SQLite holds it; a time without its zone, which is UTC."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(" ")
    return value.isoformat() if isinstance(value, date) else value


def connect(database: str, *, uri: bool = False) -> sqlite3.Connection:
    """A connection that knows the functions of translated statements."""
    connection = sqlite3.connect(database, uri=uri, cached_statements=_CACHED, check_same_thread=False)
    connection.execute("PRAGMA case_sensitive_like = ON")
    connection.create_function(ZERO_DIVISOR, 0, _zero_divisor, deterministic=True)
    for name, function in _FUNCTIONS.items():
        connection.create_function(f"esteira_{name}", 1, _of_value(function), deterministic=True)
    return connection


def opener(file: Path) -> Callable[[], sqlite3.Connection]:
    """Opens a file of reference tables, which nobody changes."""
    address = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
    return lambda: connect(address, uri=True)


class SqliteQuery:
    """A translated statement over reference tables. Safe to share by threads."""

    def __init__(self, form: str, columns: Sequence[Column], open_database: Callable[[], sqlite3.Connection]) -> None:
        """Prepares the statement.

        Args:
            form: as `esteira.sqlite_form.translate` gives it.
            columns: the raw columns known before, in the order of its parameters.
            open_database: gives a connection to the reference tables, made by `connect`.

        Raises:
            Undecided: SQLite does not take it.
        """
        self._form = form
        self._open = open_database
        self._local = threading.local()
        self._moments = [at for at, column in enumerate(columns) if column.type in ("timestamp", "date")]
        self._guards = [guard for at, column in enumerate(columns) if (guard := _guard(at, column)) is not None]
        try:
            described = self._connection().execute(f"SELECT * FROM ({form}) LIMIT 0", [None] * len(columns)).description  # noqa: S608
        except sqlite3.Error as error:
            raise Undecided(f"SQLite {sqlite3.sqlite_version} does not take the statement: {error}") from error
        self.names = [name for name, *_ in described]

    @staticmethod
    def over(form: str, columns: Sequence[Column], file: Path) -> "SqliteQuery":
        """Reads the tables of a file.

        Raises:
            Undecided: see above.
        """
        return SqliteQuery(form, columns, opener(file))

    def run_rows(self, rows: Sequence[Sequence[Value]]) -> list[tuple[Any, ...]]:
        """Gives each row's values, in the order of `names`.

        Args:
            rows: typed values in the order of the columns.

        Raises:
            Undecided: a value lies beyond what was proved, or the dialects may part at one.
            PipelineInvalid: the statement gave more or fewer rows than one for a row.
        """
        run = self._connection().execute
        found: list[tuple[Any, ...]] = []
        try:
            for row in rows:
                result = run(self._form, self._parameters(row)).fetchall()
                if len(result) != 1:
                    raise PipelineInvalid(
                        f"features.sql gave {len(result)} rows for one; a join must match one at most"
                    )
                found.append(result[0])
        except (sqlite3.Error, OverflowError) as error:
            raise Undecided(str(error)) from error
        return found

    def _parameters(self, row: Sequence[Value]) -> Sequence[Any]:
        for at, low, high in self._guards:
            value: Any = row[at]
            if value is not None and not low <= value <= high:
                raise Undecided(f"{value} lies beyond what was proved")
        if not self._moments:
            return row
        values = list(row)
        for at in self._moments:
            values[at] = plain(values[at])
        return values

    def _connection(self) -> sqlite3.Connection:
        if not hasattr(self._local, "connection"):
            self._local.connection = self._open()
        connection: sqlite3.Connection = self._local.connection
        return connection


def bounds(column: Column) -> tuple[float, float]:
    """Between which values of a numeric column the form is proved: declared bounds, but at most these."""
    most = INTEGERS if column.type == "integer" else NUMBERS
    return max(-most, column.min if column.min is not None else -most), min(
        most, column.max if column.max is not None else most
    )


def _guard(at: int, column: Column) -> tuple[int, float, float] | None:
    if column.type not in ("integer", "number"):
        return None
    low, high = bounds(column)
    declared = column.min is not None and column.max is not None and (column.min, column.max) == (low, high)
    return None if declared else (at, low, high)


def _of_value(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else function(value)


def _zero_divisor() -> None:
    raise ZeroDivisionError


def _double(value: Any) -> float:
    if isinstance(value, str):
        raise TypeError
    return float(value)


def _bigint(value: Any) -> int:
    if isinstance(value, str) or value != int(value):
        raise TypeError
    return int(value)


def _varchar(value: Any) -> str:
    if not isinstance(value, str | int):
        raise TypeError
    return str(value)


def _moment(value: Any) -> datetime:
    return datetime.fromisoformat(value)


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "abs": abs,
    "floor": lambda value: value if isinstance(value, int) else float(math.floor(value)),
    "ceil": lambda value: value if isinstance(value, int) else float(math.ceil(value)),
    "sqrt": math.sqrt,
    "ln": math.log,
    "exp": math.exp,
    "double": _double,
    "bigint": _bigint,
    "varchar": _varchar,
    "date": lambda text: _moment(text).date().isoformat(),
    "year": lambda text: _moment(text).year,
    "month": lambda text: _moment(text).month,
    "day": lambda text: _moment(text).day,
    "hour": lambda text: _moment(text).hour,
    "minute": lambda text: _moment(text).minute,
    "quarter": lambda text: (_moment(text).month + 2) // 3,
    "dayofweek": lambda text: _moment(text).isoweekday() % 7,
    "isodow": lambda text: _moment(text).isoweekday(),
    "dayofyear": lambda text: _moment(text).timetuple().tm_yday,
}
