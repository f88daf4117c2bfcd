"""The rules of values, one line each: how a value comes, and what becomes of it, in files and in requests.

Tests run these lines over everything that reads values; docs/values.md shows them.
"""

import json
import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec

from esteira.pipeline import LoadedPipeline, load_pipeline
from esteira.schema import EXPECTED, MAX_STRING, show

PIPELINE = """\
pipeline: rules
task: classification
entity: [id]
label: {name: big, sql: outcome > 50}
null_values: ["", NA]
columns:
  id: {type: integer}
  count: {type: integer, nullable: true}
  units: {type: integer, min: 0, max: 10}
  amount: {type: number, nullable: true}
  price: {type: number, min: 0.5, max: 1234567}
  memo: {type: string, nullable: true}
  town: {type: string, max_length: 6}
  grade: {type: string, nullable: true, values: [new, old, "2"]}
  paid: {type: boolean, nullable: true}
  sent: {type: boolean}
  at: {type: timestamp, nullable: true}
  seen: {type: timestamp}
  day: {type: date, nullable: true}
  due: {type: date}
  outcome: {type: number, nullable: true, known: after}
"""
TYPED = ("id", "count", "units", "amount", "price", "town", "grade", "paid", "sent", "at", "seen", "day", "due")
STATEMENT = f"""\
SELECT raw.amount, raw.memo, {", ".join(f"CAST(raw.{name} AS VARCHAR) AS {name}_text" for name in TYPED)}
FROM raw
"""
"""Features that show the typed values, digit for digit."""
GOOD = {
    "id": 1,
    "count": 3,
    "units": 3,
    "amount": 20.5,
    "price": 1.5,
    "memo": "fine",
    "town": "Paris",
    "grade": "new",
    "paid": True,
    "sent": False,
    "at": "2013-01-31T18:00:00Z",
    "seen": "2013-01-31T18:00:00Z",
    "day": "2013-01-31",
    "due": "2013-01-31",
}
MOMENT = datetime(2013, 1, 31, 18, tzinfo=UTC)
NO_TEXT = "holds what is no text (NUL, half a surrogate pair, bytes that are not UTF-8)"


class Refused(msgspec.Struct, frozen=True):
    """The value is refused; after what is said of it here comes `, got …` where the value is shown."""

    what: str
    shown: bool = True


class Absent(msgspec.Struct, frozen=True):
    """The format cannot say such a value; the reason says what it does instead."""

    why: str


Outcome = Any
"""A typed value, or `Refused`."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One rule."""

    name: str
    column: str
    json: str
    """The value in a request, as JSON writes it, or as clients write what JSON does not have."""
    becomes: Outcome
    csv: str | Absent
    """The field of a CSV file."""
    csv_becomes: Outcome = msgspec.UNSET
    """Where a text means something else than the JSON beside it."""
    parquet: Absent | None = None
    """Where Parquet (of `esteira predict`) or a Python client cannot say the value."""
    parquet_becomes: Outcome = msgspec.UNSET
    """Where it means something else there."""

    @property
    def of_csv(self) -> Outcome:
        """What becomes of the field of a CSV file."""
        return self.becomes if self.csv_becomes is msgspec.UNSET else self.csv_becomes

    @property
    def of_parquet(self) -> Outcome:
        """What becomes of the value in a Parquet file."""
        return self.becomes if self.parquet_becomes is msgspec.UNSET else self.parquet_becomes


def wrong(column: str) -> Refused:
    """What is said of a value that the column's type does not hold."""
    return Refused(EXPECTED[KINDS[column]])  # type: ignore[index]


def absent(column: str) -> Refused:
    """What is said of a value that is not there."""
    return Refused(f"missing; expected {KINDS[column]}", shown=False)


KINDS = {
    "id": "integer",
    "count": "integer",
    "units": "integer",
    "amount": "number",
    "price": "number",
    "memo": "string",
    "town": "string",
    "grade": "string",
    "paid": "boolean",
    "sent": "boolean",
    "at": "timestamp",
    "seen": "timestamp",
    "day": "date",
    "due": "date",
}
_TYPELESS = "CSV has no types: it is the same text"
_NUL = Refused("line: holds a NUL byte", shown=False)
_EMPTY = "an empty field is missing"
_UTF8 = "no UTF-8 holds it: the line is refused"
_INT64 = Absent("its integers have 64 bits")
_MIXED = Absent("a column has one type")


def case(name: str, column: str, text: str, becomes: Outcome, csv: str | Absent | None = None, **more: Any) -> Case:
    """A line; the field of a CSV file is the JSON's text if not said otherwise."""
    told = text.strip('"') if csv is None else csv
    return Case(name=name, column=column, json=text, becomes=becomes, csv=told, **more)


def nothing(name: str, text: str) -> list[Case]:
    """A missing value, for each type: taken where the column is nullable."""
    needed = {"integer": "units", "number": "price", "string": "town", "boolean": "sent"}
    needed |= {"timestamp": "seen", "date": "due"}
    free = {
        "integer": "count",
        "number": "amount",
        "string": "memo",
        "boolean": "paid",
        "timestamp": "at",
        "date": "day",
    }
    return [
        *(case(f"{name}, nullable {kind}", column, "null", None, text) for kind, column in free.items()),
        *(case(f"{name}, required {kind}", column, "null", absent(column), text) for kind, column in needed.items()),
    ]


MISSING = nothing("null", "") + nothing("NA", "NA")
INTEGERS = [
    case("an integer", "count", "3", 3),
    case("a negative integer", "count", "-3", -3),
    case("a whole number with a point", "count", "3.0", 3),
    case("a whole number with an exponent", "count", "1.2e1", 12),
    case("a broken number", "count", "3.5", wrong("count")),
    case("minus zero, integer", "count", "-0.0", 0),
    case("beyond 2^53", "count", "9007199254740993", 9007199254740993),
    case(
        "beyond 2^53, with a point",
        "count",
        "9007199254740993.0",
        9007199254740992,
        csv_becomes=9007199254740993,  # JSON's is a double before anyone can look
    ),
    case("the largest of 64 bits", "count", "9223372036854775807", 2**63 - 1),
    case("the smallest of 64 bits", "count", "-9223372036854775808", -(2**63)),
    case("beyond 64 bits", "count", "9223372036854775808", wrong("count"), parquet=_INT64),
    case("below 64 bits", "count", "-9223372036854775809", wrong("count"), parquet=_INT64),
    case("an integer of 30 digits", "count", "1" * 30, wrong("count"), parquet=_INT64),
    case("a double beyond 64 bits", "count", "1e19", wrong("count")),
    case("an exponent beyond all doubles, integer", "count", "1e999", wrong("count"), parquet=Absent("it is Infinity")),
    case("a number as string, integer", "count", '"12"', wrong("count"), Absent(_TYPELESS)),
    case("a number with leading zeros", "count", '"007"', wrong("count"), "007", csv_becomes=7),
    case("a number with a sign", "count", '"+7"', wrong("count"), "+7", csv_becomes=7),
    case("a number with an underscore", "count", '"1_000"', wrong("count")),
    case("a number with a space", "count", '" 7"', wrong("count"), " 7"),
    case("a number in other digits", "count", '"٣"', wrong("count")),
    case("a boolean as integer", "count", "true", wrong("count")),
    case("text as integer", "count", '"three"', wrong("count")),
    case("at the minimum, integer", "units", "0", 0),
    case("below the minimum, integer", "units", "-1", Refused("below the minimum 0")),
    case("at the maximum, integer", "units", "10", 10),
    case("above the maximum, integer", "units", "11", Refused("above the maximum 10")),
]
NUMBERS = [
    case("a number", "amount", "2.25", 2.25),
    case("an integer as number", "amount", "2", 2.0),
    case("a number with an exponent", "amount", "1.5E+3", 1500.0),
    case("minus zero", "amount", "-0.0", -0.0),
    case("minus zero without a point", "amount", "-0", 0.0, csv_becomes=-0.0, parquet=Absent("it is 0")),
    case("an integer beyond 2^53 as number", "amount", "9007199254740993", 9007199254740992.0),
    case("an integer beyond 64 bits as number", "amount", "1" * 30, float("1" * 30), parquet=_INT64),
    case("the least number", "amount", "5e-324", 5e-324),
    case("an exponent below all doubles", "amount", "1e-999", 0.0),
    case("an exponent beyond all doubles", "amount", "1e999", wrong("amount"), parquet=Absent("it is Infinity")),
    case("an integer of 400 digits", "amount", "1" * 400, wrong("amount"), parquet=_INT64),
    case("an integer of 5,000 digits", "amount", "1" * 5000, wrong("amount"), parquet=_INT64),
    case("NaN", "amount", "NaN", wrong("amount"), parquet_becomes=None),
    case("NaN, required", "price", "NaN", wrong("price"), parquet_becomes=absent("price")),
    case(
        "Infinity",
        "amount",
        "Infinity",
        wrong("amount"),
        parquet_becomes=Refused("is inf, which JSON cannot say", False),
    ),
    case(
        "minus Infinity",
        "amount",
        "-Infinity",
        wrong("amount"),
        parquet_becomes=Refused("is -inf, which JSON cannot say", False),
    ),
    case("NaN as string", "amount", '"nan"', wrong("amount")),
    case("a number as string", "amount", '"12.5"', wrong("amount"), Absent(_TYPELESS)),
    case("a comma in a number", "amount", '"1,5"', wrong("amount"), '"1,5"'),
    case("a bare point", "amount", '".5"', wrong("amount"), ".5", csv_becomes=0.5),
    case("a boolean as number", "amount", "true", wrong("amount")),
    case("an array as number", "amount", "[1]", wrong("amount"), "[1]"),
    case("an object as number", "amount", '{"a": 1}', wrong("amount"), Absent("CSV does not nest")),
    case("at the minimum", "price", "0.5", 0.5),
    case("below the minimum", "price", "0.25", Refused("below the minimum 0.5")),
    case("at the maximum", "price", "1234567", 1234567.0),
    case("above the maximum", "price", "1234567.5", Refused("above the maximum 1234567")),
]
STRINGS = [
    case("text", "memo", '"fine"', "fine"),
    case("text of all kinds", "memo", '"é 🙂 | \\\\"', "é 🙂 | \\", "é 🙂 | \\"),
    case("an empty string", "memo", '""', "", Absent(_EMPTY)),
    case("an empty string, required", "town", '""', "", Absent(_EMPTY)),
    case("the text NA", "memo", '"NA"', "NA", csv_becomes=None),  # one of null_values
    case("spaces around text", "memo", '" a "', " a ", " a "),
    case("a line end in text", "memo", '"a\\nb"', "a\nb", '"a\nb"'),
    case("a number as text", "memo", "12", wrong("memo"), csv_becomes="12"),
    case("a boolean as text", "memo", "true", wrong("memo"), csv_becomes="true"),
    case("an array as text", "memo", '["a"]', wrong("memo"), Absent("CSV does not nest")),
    case("an object as text", "memo", "{}", wrong("memo"), Absent("CSV does not nest")),
    case("a category that training has not seen", "town", '"Quito"', "Quito"),
    case("a category that is not declared", "grade", '"used"', Refused("none of new, old, 2")),
    case("a declared category in capitals", "grade", '"NEW"', Refused("none of new, old, 2")),
    case("a declared category as number", "grade", "2", wrong("grade"), csv_becomes="2"),
    case("as long as may be", "town", '"🙂🙂🙂🙂🙂🙂"', "🙂🙂🙂🙂🙂🙂"),
    case("too long", "town", '"Elsewhere"', Refused("longer than 6 characters")),
    case("longer than any string may be", "memo", f'"{"x" * 1001}"', Refused(f"longer than {MAX_STRING} characters")),
    case("NUL", "memo", '"a\\u0000b"', Refused(NO_TEXT, False), "a\0b", csv_becomes=_NUL),
    case("half a surrogate pair", "memo", '"a\\ud800"', Refused(NO_TEXT, False), Absent(_UTF8), parquet=Absent(_UTF8)),
    case("a whole surrogate pair", "memo", '"\\ud83d\\ude42"', "🙂", "🙂"),
]
BOOLEANS = [
    case("true", "paid", "true", True),
    case("false", "paid", "false", False),
    case("true in capitals", "paid", '"TRUE"', wrong("paid"), csv_becomes=True),
    case("yes and no", "paid", '"no"', wrong("paid"), csv_becomes=False),
    case("t and f", "paid", '"t"', wrong("paid"), csv_becomes=True),
    case("1 as boolean", "paid", "1", wrong("paid"), csv_becomes=True),
    case("0 as boolean", "paid", "0", wrong("paid"), csv_becomes=False),
    case("2 as boolean", "paid", "2", wrong("paid")),
    case("text as boolean", "paid", '"perhaps"', wrong("paid")),
]
TIMES = [
    case("a time in UTC", "at", '"2013-01-31T18:00:00Z"', MOMENT),
    case("a time with an offset", "at", '"2013-01-31T23:30:00+05:30"', MOMENT),
    case("a time with an offset without a colon", "at", '"2013-01-31T16:00:00-0200"', MOMENT),
    case("a time without a zone", "at", '"2013-01-31T18:00:00"', MOMENT),
    case("a time with a space", "at", '"2013-01-31 18:00"', MOMENT),
    case("a time of microseconds", "at", '"2013-01-31T18:00:00.000001Z"', MOMENT.replace(microsecond=1)),
    case("a time of nanoseconds", "at", '"2013-01-31T18:00:00.000000001Z"', wrong("at")),
    case("a day as time", "at", '"2013-01-31"', MOMENT.replace(hour=0)),
    case("a time with the name of a zone", "at", '"2013-01-31T18:00:00 Europe/Lisbon"', wrong("at")),
    case("an offset of a day", "at", '"2013-01-31T18:00:00+24:00"', wrong("at")),
    case("a time of no such day", "at", '"2013-02-30T00:00:00Z"', wrong("at")),
    case("hour 24", "at", '"2013-01-31T24:00:00Z"', wrong("at")),
    case("second 60", "at", '"2013-01-31T18:00:60Z"', wrong("at")),
    case("a time before 1700", "at", '"1699-12-31T23:59:59Z"', wrong("at")),
    case("a time after 2199", "at", '"2200-01-01T00:00:00Z"', wrong("at")),
    case("seconds since 1970", "at", "1359655200", wrong("at")),
    case("a time in words", "at", '"now"', wrong("at")),
    case("a day", "day", '"2013-01-31"', date(2013, 1, 31)),
    case("a leap day", "day", '"2012-02-29"', date(2012, 2, 29)),
    case("no such day", "day", '"2013-02-29"', wrong("day")),
    case("a day of year 1", "day", '"0001-01-01"', date(1, 1, 1)),
    case("a day of year 0", "day", '"0000-01-01"', wrong("day")),
    case("a day without hyphens", "day", '"20130131"', wrong("day")),
    case("a day of one digit", "day", '"2013-1-31"', wrong("day")),
    case("a time as day", "day", '"2013-01-31T00:00:00Z"', wrong("day")),
    case("a number as day", "day", "20130131", wrong("day")),
]
CASES = [*MISSING, *INTEGERS, *NUMBERS, *STRINGS, *BOOLEANS, *TIMES]


def write_pipeline(folder: Path) -> LoadedPipeline:
    """Writes the pipeline `rules` below `folder` and loads it."""
    home = folder / "rules"
    home.mkdir(parents=True, exist_ok=True)
    (home / "pipeline.yaml").write_text(PIPELINE)
    (home / "features.sql").write_text(STATEMENT)
    return load_pipeline(home)


def python_value(text: str) -> Any:
    """What JSON's text means in Python; also of what JSON does not have."""
    digits = text.removeprefix("-")
    return math.inf if digits.isdigit() and len(digits) > 4000 else json.loads(text)


def told(outcome: Refused, value: Any) -> str:
    """The whole of what is said of a refused value."""
    return f"{outcome.what}, got {show(value)}" if outcome.shown else outcome.what
