"""The columns of a pipeline's raw rows: their types, their rules, the check of one row; and what a feature is.

Files and requests bring the same columns under the same rules. A request is checked here, in Python, row by row; etl
checks whole files in SQL that it makes of the same `Column`s. Tests hold the two against one table of cases,
tests/value_rules.py, which docs/values.md shows.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
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
MAX_SHOWN = 80
"""Characters of a wrong value that messages repeat."""
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
        return {}, [Problem(path, f"expected an object of columns, got {show(row)}")]
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
        raise Refused(missing(column))
    typed: Value = _TYPED[column.type](value)
    what = EXPECTED[column.type] if typed is None else _broken_rule(column, typed)
    if what is not None:
        raise Refused(f"{what}, got {show(value)}")
    return typed


EXPECTED: dict[ColumnType, str] = {
    "integer": "expected an integer of 64 bits",
    "number": "expected a finite number",
    "string": "expected a string",
    "boolean": "expected true or false",
    "timestamp": "expected a time of 1700 to 2199 such as 2013-01-31T18:00:00Z",
    "date": "expected a date such as 2013-01-31",
}
"""What is said of a value that its column's type does not hold; of files and requests alike, as all that follows."""


def missing(column: Column) -> str:
    """What is said where a value is missing that must not be."""
    return f"missing; expected {column.type}"


def below_minimum(column: Column) -> str:
    """What is said of a number that is too small."""
    return f"below the minimum {_bound(column.min)}"


def above_maximum(column: Column) -> str:
    """What is said of a number that is too large."""
    return f"above the maximum {_bound(column.max)}"


def too_long(column: Column) -> str:
    """What is said of a string of too many characters."""
    return f"longer than {column.max_length} characters"


def none_of(column: Column) -> str:
    """What is said of a string that is not among those allowed; the first of them if they are many."""
    return f"none of {', '.join(column.values or [])[:200]}"


def show(value: object) -> str:
    """A wrong value as messages have it: texts in quotes, the beginning of long ones."""
    if isinstance(value, str):
        return repr(value if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]}…")
    if isinstance(value, list | dict):
        return "an array" if isinstance(value, list) else "an object"
    if isinstance(value, int) and value.bit_length() > 1000:
        return "an integer of hundreds of digits"
    words = {"None": "null", "True": "true", "False": "false", "nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    told = str(value)
    return words.get(told, told if len(told) <= MAX_SHOWN else f"{told[:MAX_SHOWN]}…")


def _bound(bound: float | None) -> str:
    """In full: `%g` would round what has more than six digits."""
    exact = float(bound or 0)
    return str(int(exact)) if exact.is_integer() and abs(exact) < _INT64 else repr(exact)


def _broken_rule(column: Column, value: Any) -> str | None:
    if column.type in ("integer", "number"):
        if column.min is not None and value < column.min:
            return below_minimum(column)
        return above_maximum(column) if column.max is not None and value > column.max else None
    if column.type == "string":
        if len(value) > column.max_length:
            return too_long(column)
        return none_of(column) if column.values is not None and value not in column.values else None
    return None


def _integer(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    fits = isinstance(value, int) and not isinstance(value, bool) and -_INT64 <= value < _INT64
    return value if fits else None  # type: ignore[return-value]


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _string(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    if "\0" in value or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value)):
        raise Refused("holds what is no text (NUL, half a surrogate pair, bytes that are not UTF-8)")
    return value


def _boolean(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _timestamp(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) and _TIMESTAMP.fullmatch(value) else None
        if moment is not None:
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # no such day, or in UTC before year 1 or after 9999
        pass
    return None


def _date(value: object) -> date | None:
    try:
        return date.fromisoformat(value) if isinstance(value, str) and _DATE.fullmatch(value) else None
    except ValueError:  # no such day
        return None


_TYPED: dict[ColumnType, Callable[[object], Value]] = {
    "integer": _integer,
    "number": _number,
    "string": _string,
    "boolean": _boolean,
    "timestamp": _timestamp,
    "date": _date,
}


def entity_key(values: Iterable[Value]) -> str:
    """Joins the values of the entity columns into the one string that identifies a row.

    Integers in decimal, times as `YYYY-MM-DDTHH:MM:SS[.ffffff]Z`, dates in ISO form, booleans as `true` and `false`,
    strings as they are with `\\` and `|` escaped; joined by `|`.
    """
    return "|".join([_key_part(value) for value in values])


def _key_part(value: Value) -> str:
    if type(value) is int:
        return str(value)
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
