"""Compiles a pipeline's features.sql: checks it without data, and adds the row key to its select list.

The statement is one SELECT from `raw`, and it is row-local: its result for a row depends on that row and the reference
tables alone. What breaks that visibly (aggregates, windows, DISTINCT, LIMIT, the clock, chance) is refused here, by
line; the rest is measured by etl, which holds row counts and row-by-row results against the whole batch.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Any, Literal

import duckdb
import msgspec
import sqlglot
from sqlglot import exp
from sqlglot.tokenizer_core import Token, TokenType

from esteira.exceptions import PipelineInvalid
from esteira.features import ROW, create_references
from esteira.pipeline import LoadedPipeline
from esteira.schema import DUCKDB_TYPES, quote

FeatureKind = Literal["numeric", "categorical"]

_NOT_ROW_LOCAL: dict[type[Any], str] = {
    exp.Window: "a window function looks at other rows",
    exp.AggFunc: "an aggregate looks at other rows",
    exp.Group: "GROUP BY joins rows together",
    exp.Distinct: "DISTINCT drops rows",
    exp.Limit: "LIMIT drops rows",
    exp.Where: "WHERE drops rows; give their features NULL instead",
    exp.SetOperation: "UNION, EXCEPT and INTERSECT add or drop rows",
    exp.Offset: "OFFSET drops rows",
    exp.TableSample: "a sample drops rows",
    exp.Unnest: "unnest adds rows",
    exp.Explode: "unnest adds rows",
}
_AS_IT_IS = {"this", "alias", "db", "catalog"}
"""The parts of FROM raw AS r."""
_CLOCK = {"current_timestamp", "current_date", "current_time", "localtime", "localtimestamp", "ago"}
"""Read without parentheses, or a macro that does so."""


class FeatureColumn(msgspec.Struct, frozen=True):
    """A column that the statement yields."""

    name: str
    kind: FeatureKind


class Statement(msgspec.Struct, frozen=True):
    """A features.sql that holds."""

    sql: str
    """The text of features.sql with the row key `_row` first in its select list."""
    features: list[FeatureColumn]


def compile_statement(pipeline: LoadedPipeline) -> Statement:
    """Checks features.sql against the pipeline's columns and reference tables.

    Raises:
        PipelineInvalid: with file, line, what is wrong and what to do.
    """
    source = _Source(pipeline)
    source.check_row_locality()
    source.check_names()
    sql = source.with_row_key()
    with duckdb.connect(":memory:") as connection:
        create_references(connection, pipeline.folder, pipeline.spec.reference)
        connection.execute("SET enable_external_access = false")  # as it is where features are made
        _create_empty_raw(connection, pipeline)
        source.check_functions(connection)
        source.check_in_duckdb(connection)
        described = connection.execute(f"DESCRIBE {sql}").fetchall()
    features = [source.feature(name, kind) for name, kind, *_ in described if name != ROW]
    source.check_features(features)
    return Statement(sql, features)


def _create_empty_raw(connection: duckdb.DuckDBPyConnection, pipeline: LoadedPipeline) -> None:
    columns = [f"{quote(c.name)} {DUCKDB_TYPES[c.type]}" for c in pipeline.columns if c.known == "before"]
    connection.execute(f"CREATE TABLE raw ({', '.join([*columns, f'{ROW} BIGINT'])})")


class _Source:
    """The text of features.sql, and where things stand in it."""

    def __init__(self, pipeline: LoadedPipeline) -> None:
        self._pipeline = pipeline
        self.path = pipeline.folder / "features.sql"
        self._above = 0
        self.text = pipeline.features_sql
        self._trim()
        self._select = self._parse()

    def error(self, message: str, line: int = 1) -> PipelineInvalid:
        return PipelineInvalid(f"{self.path}:{line + self._above}: {message}")

    def _trim(self) -> None:
        """Cuts off what stands before the first word, from which DuckDB counts lines, and a last semicolon."""
        try:
            tokens = list(sqlglot.tokenize(self.text, read="duckdb"))
        except sqlglot.errors.SqlglotError as error:
            raise self.error(f"not SQL: {str(error).splitlines()[0]}; mend the statement") from error
        start = tokens[0].start if tokens else 0
        end = len(self.text)
        while tokens and tokens[-1].token_type == TokenType.SEMICOLON:
            end = tokens.pop().start
        self._above = self.text[:start].count("\n")
        self.text = self.text[start:end].rstrip()

    def _parse(self) -> exp.Select:
        try:
            statements = sqlglot.parse(self.text, read="duckdb")
        except sqlglot.errors.SqlglotError as error:
            found = getattr(error, "errors", None) or [{}]
            what = found[0].get("description") or str(error)
            raise self.error(f"not SQL: {what}; mend the statement", found[0].get("line") or 1) from error
        if len(statements) != 1 or not isinstance(statements[0], exp.Select):
            raise self.error("expected exactly one SELECT; write one statement that names each feature")
        return statements[0]

    def check_row_locality(self) -> None:
        for node in self._select.walk():
            for kind, why in _NOT_ROW_LOCAL.items():
                if isinstance(node, kind):
                    raise self.error(f"{why}, and features may depend on one row only; rewrite it", _line(node))

        for join in self._select.args.get("joins") or []:
            if join.side != "LEFT":
                raise self.error("only a LEFT JOIN keeps every row, and each once; write LEFT JOIN", _line(join))

    def check_names(self) -> None:
        """Refuses what gives a column another name unseen: what is logged follows from names (`esteira.lineage`)."""
        for node in self._select.walk():
            if isinstance(node, exp.PositionalColumn):
                raise self.error("#1 names no column; write the column's name", _line(node.parent or node))
            if isinstance(node, exp.Join) and node.method.upper() == "NATURAL":
                raise self.error("NATURAL names no column; write LEFT JOIN … USING (column)", _line(node))
            if isinstance(node, exp.CTE) and node.alias_or_name.lower() == "raw":
                raise self.error("WITH raw hides the rows that come in; give it another name", _line(node))
            if isinstance(node, exp.Table) and node.name.lower() == "raw":
                self._check_raw(node)

    def _check_raw(self, table: exp.Table) -> None:
        if table.alias_column_names or {name for name, value in table.args.items() if value} - _AS_IT_IS:
            raise self.error("raw is read as it is; write FROM raw, and name columns in SELECT", _line(table))

    def check_functions(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Refuses what DuckDB itself calls an aggregate, or not the same for the same arguments."""
        query = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE "
        unstable = _names(connection, f"{query} stability <> 'CONSISTENT' AND function_name <> 'error'")
        aggregates = _names(connection, f"{query} function_type = 'aggregate'")
        tokens = sqlglot.tokenize(self.text, read="duckdb")
        for token, following in itertools.zip_longest(tokens, tokens[1:]):
            name = token.text.lower()
            called = following is not None and following.token_type == TokenType.L_PAREN
            if name in _CLOCK and token.token_type not in (TokenType.IDENTIFIER, TokenType.STRING):
                raise self.error(f"{name} reads the clock: features may depend on one row only; rewrite it", token.line)
            if called and name in unstable:
                raise self.error(f"{name}() gives another value each time; rewrite it with columns only", token.line)
            if called and name in aggregates:
                raise self.error(
                    f"{name}() is an aggregate: features may depend on one row only; rewrite it", token.line
                )

    def check_in_duckdb(self, connection: duckdb.DuckDBPyConnection) -> None:
        try:
            connection.execute(self.text)
        except duckdb.Error as error:
            place = re.search(r"LINE (\d+):", str(error))
            what = str(error).split("\n\nLINE")[0].replace("\n", " ")
            raise self.error(f"{what}{self._hint(what)}", int(place[1]) if place else 1) from error

    def _hint(self, what: str) -> str:
        named = re.search(r'column "(\w+)"', what)
        late = {column.name for column in self._pipeline.columns if column.known == "after"}
        if named and named[1] in late:
            return f"; {named[1]} is known only after the prediction: no feature may use it"
        return "; mend the statement, or declare what it names in pipeline.yaml"

    def with_row_key(self) -> str:
        """Puts the row key behind the outermost SELECT and leaves every other character as it is."""
        keyword = next(self._outermost(TokenType.SELECT))
        end = keyword.end + 1
        return f"{self.text[:end]} {self._raw_alias()}.{ROW} AS {ROW},{self.text[end:]}"

    def _outermost(self, kind: TokenType) -> Iterator[Token]:
        depth = 0
        for token in sqlglot.tokenize(self.text, read="duckdb"):
            depth += (token.token_type == TokenType.L_PAREN) - (token.token_type == TokenType.R_PAREN)
            if depth == 0 and token.token_type == kind:
                yield token

    def _raw_alias(self) -> str:
        source = self._select.args.get("from_") or self._select.args.get("from")
        table = source.this if source else None
        if not isinstance(table, exp.Table) or table.name.lower() != "raw":
            raise self.error("the outermost SELECT must read FROM raw and LEFT JOIN the rest; rewrite it")
        return quote(table.alias_or_name)

    def feature(self, name: str, kind: str) -> FeatureColumn:
        if kind == "BOOLEAN" or kind in _NUMERIC or kind.startswith("DECIMAL"):
            return FeatureColumn(name, "numeric")
        if kind == "VARCHAR" or kind.startswith("ENUM"):
            return FeatureColumn(name, "categorical")
        raise self.error(
            f"feature {name} is {kind}; cast it to a number, a boolean or VARCHAR", self._last_line_of(name)
        )

    def _last_line_of(self, name: str) -> int:
        """The last line of the select list that holds the word `name`."""
        end = next(self._outermost(TokenType.FROM)).line
        lines = list(enumerate(self.text.splitlines()[:end], 1))
        return next((n for n, line in reversed(lines) if re.search(rf"\b{re.escape(name)}\b", line, re.IGNORECASE)), 1)

    def check_features(self, features: list[FeatureColumn]) -> None:
        names = [feature.name.lower() for feature in features]
        for name in names:
            if names.count(name) > 1 or name.startswith("_"):
                raise self.error(
                    f"feature {name!r}: names are unique and do not begin with _; rename it", self._last_line_of(name)
                )
        if not features:
            raise self.error("yields no feature; name at least one")
        for name in self._pipeline.spec.gates.slices:
            if name not in {feature.name for feature in features}:
                raise self.error(f"gates.slices in pipeline.yaml names {name!r}, which is no feature here; mend either")
        known = {*(f.name for f in features), *(c.name for c in self._pipeline.columns)}
        for name in self._pipeline.spec.prediction_log.columns:
            if name not in known:
                what = f"prediction_log.columns in pipeline.yaml names {name!r}"
                raise self.error(f"{what}, which is neither a column nor a feature here; mend either")


def _names(connection: duckdb.DuckDBPyConnection, query: str) -> set[str]:
    return {name for (name,) in connection.execute(query).fetchall()}


_NUMERIC = {
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT", "FLOAT", "DOUBLE"),
}


def _line(node: exp.Expr) -> int:
    lines = (part.meta.get("line") for part in node.walk())
    return next((line for line in lines if line), 1)
