"""The checks of `esteira.schema` as DuckDB SQL, for whole files at once.

Fields of a file are text, and mean what `esteira.fields` reads in them; all else is as in `check_value`, in the same
words.
"""

import math
from collections.abc import Callable, Sequence

from esteira.fields import FALSE, NUMBER_FORM, TRUE, WHOLE_FORM
from esteira.schema import (
    DATE_FORM,
    EXPECTED,
    TIMESTAMP_FORM,
    Column,
    above_maximum,
    below_minimum,
    missing,
    none_of,
    quote,
    too_long,
)

_INT128 = 2.0**126
_OFFSET = "([+-])([0-9]{2}):?([0-9]{2})$"


def literal(text: str) -> str:
    """Quotes an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def reason_name(position: int) -> str:
    """The column that says what is wrong with the column at `position`."""
    return f"_reason_{position}"


def check_sql(columns: Sequence[Column], null_values: Sequence[str], source: str) -> str:
    """A SELECT that types the text columns of `source`: typed columns, a reason for each, and `_line`.

    A reason is NULL where the value holds; else it says what is wrong, without the value.
    """
    texts = [f"{_without_nulls(quote(c.name), null_values)} AS {_text(i)}" for i, c in enumerate(columns)]
    values = [f"{_typed(c, _text(i))} AS {_value(i)}" for i, c in enumerate(columns)]
    results = [
        f"{_value(i)} AS {quote(c.name)}, {_reason(c, _text(i), _value(i))} AS {reason_name(i)}"
        for i, c in enumerate(columns)
    ]
    return (
        f"WITH texts AS (SELECT _line, {', '.join(texts)} FROM {source}), "  # noqa: S608
        f"typed AS (SELECT *, {', '.join(values)} FROM texts) "
        f"SELECT _line, {', '.join(results)} FROM typed"
    )


def _without_nulls(name: str, null_values: Sequence[str]) -> str:
    nulls = ", ".join(map(literal, null_values))
    return f"CASE WHEN {name} NOT IN ({nulls}) THEN {name} END" if nulls else name


def _text(position: int) -> str:
    return f"_text_{position}"


def _value(position: int) -> str:
    return f"_value_{position}"


def _typed(column: Column, text: str) -> str:
    return _TYPED[column.type].replace("$T", text)


_DOUBLE = "TRY_CAST($T AS DOUBLE)"
_LOCAL = f"TRY_CAST(regexp_replace($T, '(Z|{_OFFSET[:-1]})$', '') AS TIMESTAMP)"
_MINUTES = (
    f"(CASE regexp_extract($T, '{_OFFSET}', 1) WHEN '-' THEN -1 ELSE 1 END * "
    f"(60 * TRY_CAST(regexp_extract($T, '{_OFFSET}', 2) AS INTEGER) + "
    f"TRY_CAST(regexp_extract($T, '{_OFFSET}', 3) AS INTEGER)))"
)
_UTC = f"{_LOCAL} - to_minutes(coalesce({_MINUTES}, 0))"
_IN_PYTHONS_RANGE = (
    f"$T[1:4] <> '0000' AND {_UTC} BETWEEN TIMESTAMP '0001-01-01' AND TIMESTAMP '9999-12-31 23:59:59.999999'"
)
_TYPED = {
    "integer": (
        f"CASE WHEN regexp_full_match($T, '{WHOLE_FORM}') THEN TRY_CAST(split_part($T, '.', 1) AS BIGINT) "
        f"WHEN regexp_full_match($T, '{NUMBER_FORM}') AND {_DOUBLE} = trunc({_DOUBLE}) "
        f"THEN TRY_CAST({_DOUBLE} AS BIGINT) END"
    ),
    "number": f"CASE WHEN regexp_full_match($T, '{NUMBER_FORM}') AND isfinite({_DOUBLE}) THEN {_DOUBLE} END",
    "string": "$T",
    "boolean": f"CASE WHEN lower($T) IN {TRUE} THEN true WHEN lower($T) IN {FALSE} THEN false END",
    "timestamp": f"CASE WHEN regexp_full_match($T, '{TIMESTAMP_FORM}') AND {_IN_PYTHONS_RANGE} THEN {_UTC} END",
    "date": f"CASE WHEN regexp_full_match($T, '{DATE_FORM}') AND $T[1:4] <> '0000' THEN TRY_CAST($T AS DATE) END",
}


def _reason(column: Column, text: str, value: str) -> str:
    absent = "NULL" if column.nullable else literal(missing(column))
    cases = [(f"{text} IS NULL", absent), (f"{value} IS NULL", literal(EXPECTED[column.type]))]
    cases += [(condition, literal(what)) for condition, what in _rules(column, value)]
    return f"CASE {' '.join(f'WHEN {condition} THEN {what}' for condition, what in cases)} END"


def _rules(column: Column, value: str) -> list[tuple[str, str]]:
    """What breaks a rule, and what to say of it."""
    if column.type in ("integer", "number"):
        return _range_rules(column, value)
    return _string_rules(column, value) if column.type == "string" else []


def _range_rules(column: Column, value: str) -> list[tuple[str, str]]:
    rules = []
    if column.min is not None:
        rules.append((f"{value} < {_bound(column, column.min, math.ceil)}", below_minimum(column)))
    if column.max is not None:
        rules.append((f"{value} > {_bound(column, column.max, math.floor)}", above_maximum(column)))
    return rules


def _bound(column: Column, bound: float, rounded: Callable[[float], int]) -> str:
    """Integers are compared as integers, for DOUBLE holds only those of 53 bits."""
    if column.type == "integer" and math.isfinite(bound) and abs(bound) < _INT128:
        return f"CAST('{rounded(bound)}' AS HUGEINT)"
    return f"CAST('{bound!r}' AS DOUBLE)"


def _string_rules(column: Column, value: str) -> list[tuple[str, str]]:
    rules = [(f"length({value}) > {column.max_length}", too_long(column))]
    if column.values is not None:
        allowed = ", ".join(map(literal, column.values)) or "NULL"
        rules.append((f"coalesce({value} NOT IN ({allowed}), true)", none_of(column)))
    return rules
