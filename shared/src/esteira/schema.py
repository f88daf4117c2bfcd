"""The columns of a pipeline's raw rows: their types, their rules, the check of one row; and what a feature is.

Files and requests bring the same columns under the same rules. A request is checked here, in Python, row by row; etl
checks whole files in SQL that it makes of the same `Column`s. A test holds the two against one table of cases.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Literal

import msgspec

from esteira.exceptions import Problem

ColumnType = Literal["integer", "number", "string", "boolean", "timestamp", "date"]
Value = int | float | str | bool | datetime | date | None
Row = dict[str, Value]

DUCKDB_TYPES: dict[str, str] = {
    "integer": "BIGINT",
    "number": "DOUBLE",
    "string": "VARCHAR",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMP",
    "date": "DATE",
}
"""A timestamp is kept without zone, in UTC."""

MAX_STRING = 1000
DATE_FORM = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
TIMESTAMP_FORM = (
    r"(1[7-9]|20|21)[0-9]{2}-[0-9]{2}-[0-9]{2}([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
    "(Z|[+-]([01][0-9]|2[0-3]):?[0-5][0-9])?)?"
)
"""The parts of ISO 8601 that files and requests may use. A time is of 1700 to 2199; without an offset it is in UTC."""
MAX_KEY_BYTES = 1000
"""Longest entity key: Postgres indexes no value of over about 2,700 bytes."""
_INT64 = 2**63
_TIMESTAMP = re.compile(TIMESTAMP_FORM)
_DATE = re.compile(DATE_FORM)


class Feature(msgspec.Struct, frozen=True):
    """One column of the matrix that a model takes."""

    name: str
    kind: Literal["numeric", "categorical"]
    categories: list[str] = []
    """Sorted; a category is encoded as its index here."""


class Column(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One column of the raw rows, and what its values must be."""

    name: str
    type: ColumnType
    nullable: bool = False
    """Whether a value may be missing: an empty field of a file, `null` or no key in a request."""
    min: float | None = None
    """Smallest allowed number, inclusive."""
    max: float | None = None
    """Largest allowed number, inclusive."""
    values: list[str] | None = None
    """All allowed strings."""
    max_length: int = MAX_STRING
    """Longest allowed string, in characters."""
    known: Literal["before", "after"] = "before"
    """`after`: known only after the prediction was wanted. Never a feature, never in a request."""


class Refused(Exception):
    """A value breaks its column's rule; the message says how."""


def check_row(columns: Sequence[Column], row: object, path: str) -> tuple[Row, list[Problem]]:
    """Turns one row of a request into typed values, naming everything that is wrong with it.

    Args:
        columns: the pipeline's columns; those known only `after` are not expected.
        row: what JSON decoding gave; anything but an object is a problem.
        path: where the row stands in the request, such as `rows[0]`.

    Returns:
        The typed row, with None for what is missing, and the problems found; the row is of use only without problems.
    """
    if not isinstance(row, dict):
        return {}, [Problem(path, f"expected an object of columns, got {_kind(row)}")]
    expected = [column for column in columns if column.known == "before"]
    problems = _unknown_keys(expected, row, path)
    typed: Row = {}
    for column in expected:
        try:
            typed[column.name] = check_value(column, row.get(column.name))
        except Refused as refused:
            problems.append(Problem(f"{path}.{column.name}", str(refused)))
    return typed, problems


def _unknown_keys(columns: Iterable[Column], row: Mapping[str, object], path: str) -> list[Problem]:
    known = {column.name for column in columns}
    return [Problem(f"{path}.{key}", "unknown column; remove it") for key in row if key not in known]


def check_value(column: Column, value: object) -> Value:
    """Gives the typed value.

    Raises:
        Refused: the value breaks the column's type or one of its rules.
    """
    if value is None:
        if column.nullable:
            return None
        raise Refused(f"missing; expected {column.type}")
    typed: Value = _TYPED[column.type](value)
    _check_rules(column, typed)
    return typed


def _check_rules(column: Column, value: Value) -> None:
    if column.type in ("integer", "number"):
        _check_range(column, value)
    if column.type == "string":
        _check_string(column, str(value))


def _check_range(column: Column, value: Any) -> None:
    if column.min is not None and value < column.min:
        raise Refused(f"{value} is below the minimum {column.min:g}")
    if column.max is not None and value > column.max:
        raise Refused(f"{value} is above the maximum {column.max:g}")


def _check_string(column: Column, value: str) -> None:
    if len(value) > column.max_length:
        raise Refused(f"has {len(value)} characters, at most {column.max_length} are allowed")
    if column.values is not None and value not in column.values:
        raise Refused(f"{value!r} is none of {', '.join(column.values)}")


def _integer(value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refused(f"expected an integer, got {_kind(value)}")
    if not -_INT64 <= value < _INT64:
        raise Refused("does not fit 64 bits")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Refused(f"expected a number, got {_kind(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Refused("expected a finite number")
    return number


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise Refused(f"expected a string, got {_kind(value)}")
    if "\0" in value or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value)):
        raise Refused("holds a character that is no text (NUL or half a surrogate pair)")
    return value


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise Refused(f"expected true or false, got {_kind(value)}")
    return value


def _timestamp(value: object) -> datetime:
    text = _string(value)
    try:
        moment = datetime.fromisoformat(text) if _TIMESTAMP.fullmatch(text) else None
        if moment is not None:
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # no such day, or in UTC before year 1 or after 9999
        pass
    raise Refused(f"expected a time of 1700 to 2199 such as 2013-01-31T18:00:00Z, got {text[:40]!r}")


def _date(value: object) -> date:
    text = _string(value)
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:  # no such day
        pass
    raise Refused(f"expected a date such as 2013-01-31, got {text[:40]!r}")


_TYPED: dict[str, Any] = {
    "integer": _integer,
    "number": _number,
    "string": _string,
    "boolean": _boolean,
    "timestamp": _timestamp,
    "date": _date,
}


def _kind(value: object) -> str:
    names = {
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)


def entity_key(values: Iterable[Value]) -> str:
    """Joins the values of the entity columns into the one string that identifies a row.

    Integers in decimal, times as `YYYY-MM-DDTHH:MM:SS[.ffffff]Z`, dates in ISO form, booleans as `true` and `false`,
    strings as they are with `\\` and `|` escaped; joined by `|`.
    """
    return "|".join(_key_part(value) for value in values)


def _key_part(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
    if isinstance(value, date):
        return value.isoformat()
    return str(value).replace("\\", "\\\\").replace("|", "\\|")


def entity_key_sql(columns: Sequence[Column]) -> str:
    """The DuckDB expression that gives the same string as `entity_key` from typed columns."""
    return " || '|' || ".join(_key_part_sql(column) for column in columns)


def _key_part_sql(column: Column) -> str:
    name = quote(column.name)
    if column.type == "timestamp":
        seconds, micros = f"strftime({name}, '%Y-%m-%dT%H:%M:%S')", f"strftime({name}, '.%f')"
        return f"{seconds} || CASE WHEN {micros} = '.000000' THEN '' ELSE {micros} END || 'Z'"
    if column.type == "string":
        return f"replace(replace({name}, '\\', '\\\\'), '|', '\\|')"
    return f"CAST({name} AS VARCHAR)"


def quote(name: str) -> str:
    """Quotes an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
