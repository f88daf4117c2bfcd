"""Translates a compiled features.sql to SQLite, where single rows cost microseconds, not milliseconds.

Only what is listed here is translated, node by node; a statement with anything else keeps its DuckDB form alone. What
is translated is still not trusted: etl holds it against DuckDB for every row of every file, the trainer for stress rows
of every release. Where the two dialects part at single values (a divisor of zero, a cast that fails, a text that is no
number), the translation raises instead of answering, and DuckDB decides.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from typing import Any

import duckdb
import sqlglot
from sqlglot import exp

from esteira.features import ROW
from esteira.schema import Column, quote
from esteira.sqlite_query import ZERO_DIVISOR, plain

_SAME: frozenset[type[Any]] = frozenset(
    {
        *(exp.Select, exp.From, exp.Join, exp.Table, exp.TableAlias, exp.Subquery, exp.With, exp.CTE),
        *(exp.Column, exp.Identifier, exp.Alias, exp.Literal, exp.Null, exp.Boolean, exp.Paren, exp.Tuple),
        *(exp.Neg, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.IntDiv, exp.Mod, exp.DPipe),
        *(exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.NullSafeEQ, exp.NullSafeNEQ),
        *(exp.And, exp.Or, exp.Not, exp.Is, exp.In, exp.Between, exp.Like, exp.Case, exp.If),
        *(exp.Coalesce, exp.Nullif, exp.Greatest, exp.Least, exp.Length, exp.Substring, exp.Var),
    }
)
"""Means the same in both, once its parts do."""
_FUNCTIONS: dict[type[Any], str] = {
    exp.Lower: "lower",
    exp.Upper: "upper",
    exp.Abs: "abs",
    exp.Floor: "floor",
    exp.Ceil: "ceil",
    exp.Sqrt: "sqrt",
    exp.Ln: "ln",
    exp.Exp: "exp",
    exp.Year: "year",
    exp.Month: "month",
    exp.Day: "day",
    exp.Hour: "hour",
    exp.Minute: "minute",
    exp.DayOfWeek: "dayofweek",
    exp.DayOfWeekIso: "isodow",
    exp.DayOfYear: "dayofyear",
    exp.Quarter: "quarter",
}
"""Functions of one argument that `esteira.sqlite_query` gives to SQLite."""
_CASTS: dict[Any, str] = {
    **dict.fromkeys((exp.DataType.Type.DOUBLE,), "double"),
    **dict.fromkeys((exp.DataType.Type.BIGINT, exp.DataType.Type.INT), "bigint"),
    **dict.fromkeys((exp.DataType.Type.VARCHAR, exp.DataType.Type.TEXT), "varchar"),
    **dict.fromkeys((exp.DataType.Type.DATE,), "date"),
}
_PARTS = {"dow": "dayofweek", "doy": "dayofyear"}


class NotTranslatable(Exception):
    """The statement keeps its DuckDB form; the message says what stands in the way."""


def translate(statement: str, columns: Sequence[Column]) -> str:
    """The SQLite form of a compiled statement, for one raw row whose values are its parameters.

    Args:
        statement: as `esteira.statement.compile_statement` gives it.
        columns: the raw columns known before, in the order of the parameters.

    Raises:
        NotTranslatable: a part of it has no counterpart here.
    """
    tree = sqlglot.parse_one(statement, read="duckdb").transform(_translated)
    raw = ", ".join(f"?{position} AS {quote(column.name)}" for position, column in enumerate(columns, 1))
    text = tree.sql(dialect="sqlite", comments=False)
    return f"WITH raw AS (SELECT {raw}, 0 AS {ROW}) SELECT * FROM ({text})"  # noqa: S608  the pipeline's own


def form_sha256(form: str) -> str:
    """Identifies a translated statement."""
    return hashlib.sha256(form.encode()).hexdigest()


def _translated(node: exp.Expression) -> exp.Expression:
    if isinstance(node, exp.Cast) and type(node) is exp.Cast:
        return _cast(node)
    if isinstance(node, exp.Anonymous) and node.name.startswith("esteira_"):
        return node  # translated already
    if isinstance(node, exp.Extract):
        return _part(str(node.this.this), node.expression)
    if isinstance(node, exp.Anonymous) and node.name.lower() == "date_part" and len(node.expressions) == 2:
        return _part(node.expressions[0].name, node.expressions[1])
    if type(node) in _FUNCTIONS:
        if [name for name, value in node.args.items() if value and name != "this"]:
            raise NotTranslatable(f"{node.sql('duckdb')} has more than one argument")
        return _call(_FUNCTIONS[type(node)], node.this)
    if type(node) not in _SAME:
        raise NotTranslatable(f"{node.sql('duckdb')[:80]} has no SQLite form here")
    if isinstance(node, exp.Div | exp.IntDiv | exp.Mod):
        return _divided(node)
    return node


def _cast(node: exp.Cast) -> exp.Expression:
    kind = _CASTS.get(node.to.this)
    if kind is None or node.to.expressions:
        raise NotTranslatable(f"a cast to {node.to.sql('duckdb')} has no SQLite form here")
    return _call(kind, node.this)


def _part(name: str, value: exp.Expression) -> exp.Expression:
    name = name.lower()
    known = _PARTS.get(name, name)
    if known not in set(_FUNCTIONS.values()) | set(_PARTS.values()):
        raise NotTranslatable(f"the part {name} of a time has no SQLite form here")
    return _call(known, value)


def _call(name: str, value: exp.Expression) -> exp.Expression:
    return exp.Anonymous(this=f"esteira_{name}", expressions=[value.transform(_translated)])


def _divided(node: exp.Expression) -> exp.Expression:
    """A divisor of zero is left to DuckDB, which refuses some and not others."""
    divisor = node.expression
    plain_number = divisor.unnest()
    if not (isinstance(plain_number, exp.Literal) and float(plain_number.name or 0) != 0):
        checked = exp.Case(ifs=[exp.If(this=divisor.eq(0), true=exp.Anonymous(this=ZERO_DIVISOR))], default=divisor)
        node.set("expression", exp.Paren(this=checked))
    return node


def copy_references(
    source: duckdb.DuckDBPyConnection, names: Iterable[str], statement: str, target: sqlite3.Connection
) -> None:
    """Copies reference tables to SQLite, with an index on the columns that the statement joins them by.

    Raises:
        NotTranslatable: a table holds a value that SQLite cannot, or a type that it does not know.
    """
    joined = _join_columns(statement)
    for name in names:
        relation = source.sql(f"FROM {quote(name)}")
        take = [_taker(name, column, str(kind)) for column, kind in zip(relation.columns, relation.types, strict=True)]
        rows = [tuple(f(value) for f, value in zip(take, row, strict=True)) for row in relation.fetchall()]
        columns = ", ".join(quote(column) for column in relation.columns)
        target.execute(f"CREATE TABLE {quote(name)} ({columns})")
        try:
            target.executemany(f"INSERT INTO {quote(name)} VALUES ({', '.join('?' for _ in take)})", rows)  # noqa: S608
        except OverflowError as error:
            raise NotTranslatable(f"reference table {name} holds a number beyond 64 bits") from error
        lowered = {column.lower(): column for column in relation.columns}
        keys = [lowered[key] for key in joined.get(name.lower(), ()) if key in lowered]
        if keys:
            target.execute(f"CREATE INDEX {quote(f'{name}_joined')} ON {quote(name)} ({', '.join(map(quote, keys))})")
    target.commit()


def _taker(table: str, column: str, kind: str) -> Callable[[Any], Any]:
    if kind in _TIMES:
        return lambda value: (
            plain(value) if isinstance(value, datetime | date) or value is None else _refuse(table, column)
        )
    if kind in _DOUBLES:
        return lambda value: value if value is None or value == value else _refuse(table, column)
    if kind in _PLAIN:
        return lambda value: value
    raise NotTranslatable(f"{table}.{column} is {kind}, which SQLite does not know")


def _refuse(table: str, column: str) -> Any:
    raise NotTranslatable(f"{table}.{column} holds a value that SQLite cannot")


_TIMES = {"TIMESTAMP", "DATE"}
_DOUBLES = {"DOUBLE", "FLOAT"}
_PLAIN = {
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
    *("BOOLEAN", "VARCHAR"),
}


def _join_columns(statement: str) -> dict[str, list[str]]:
    """Of each joined table the columns that an equality of its ON names, in lower case."""
    found: dict[str, list[str]] = {}
    for join in sqlglot.parse_one(statement, read="duckdb").find_all(exp.Join):
        table = join.this
        if not isinstance(table, exp.Table) or join.args.get("on") is None:
            continue
        alias = table.alias_or_name.lower()
        named = [
            c.name.lower()
            for eq in join.args["on"].find_all(exp.EQ)
            for c in eq.find_all(exp.Column)
            if c.table.lower() == alias
        ]
        found.setdefault(table.name.lower(), list(dict.fromkeys(named)))
    return found
