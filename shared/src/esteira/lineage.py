"""From which raw columns each feature derives, read off features.sql.

Too many rather than too few: what a feature withholds follows from it. A column of a joined table derives from the raw
columns that its join asks for, for they choose the row. What cannot be told (a star, a whole row, a subquery that reads
`raw`) is taken to derive from all columns, and a name without a table from all joins too: DuckDB may find it there.
"""

from collections.abc import Iterable

import sqlglot
from sqlglot import exp

from esteira.pipeline import LoadedPipeline
from esteira.redaction import Redaction, resolve
from esteira.statement import Statement

Names = frozenset[str]
_NONE: Names = frozenset()
_KNOWN_PLACES = (exp.Column, exp.Alias, exp.Table, exp.TableAlias, exp.Extract, exp.Interval)
"""Of names that are a column's part, an alias, a table, or a unit of time."""


def find_redaction(pipeline: LoadedPipeline, statement: Statement) -> Redaction:
    """What releases of this pipeline withhold from the log of predictions."""
    columns = [column.name for column in pipeline.columns if column.known == "before"]
    lineage = trace_features(pipeline.features_sql, columns, [feature.name for feature in statement.features])
    return resolve(pipeline.spec.prediction_log.columns, columns, lineage)


def trace_features(features_sql: str, columns: Iterable[str], features: Iterable[str]) -> dict[str, Names]:
    """The raw columns that each feature may derive from.

    Args:
        features_sql: a statement that `esteira.statement.compile_statement` took.
        columns: the raw columns that it may read.
        features: what it yields.
    """
    parsed = next(s for s in sqlglot.parse(features_sql, read="duckdb") if isinstance(s, exp.Select))
    tracer = _Tracer(parsed, list(columns))
    return {name: tracer.feature(name) for name in features}


class _Tracer:
    """The outermost SELECT, its joins, and what its select list derives from."""

    def __init__(self, select: exp.Select, columns: list[str]) -> None:
        source = select.args.get("from_") or select.args.get("from")
        self._columns = {column.lower(): column for column in columns}
        self._all: Names = frozenset(columns)
        self._raw = source.this.alias_or_name.lower() if source else "raw"
        self._reading = {"raw", *_queries_of_raw(select)}
        self._unknown = self._all if _expands(*select.expressions) else _NONE
        self._joined: dict[str, Names] = {}
        self._features: dict[str, Names] = {}
        for join in select.args.get("joins") or []:  # in their order: a condition names tables that stand before it
            self._add(self._joined, join.this.alias_or_name, _NONE)
            self._add(self._joined, join.this.alias_or_name, self._of_join(join))
        for projection in select.expressions:
            self._add(self._features, projection.alias_or_name, self._of(projection))

    def feature(self, name: str) -> Names:
        return self._features.get(name.lower(), self._all)  # unnamed: it came out of a star

    @staticmethod
    def _add(known: dict[str, Names], name: str, found: Names) -> None:
        known[name.lower()] = found | known.get(name.lower(), _NONE)

    def _of(self, node: exp.Expression) -> Names:
        return self._all if _expands(node) else self._of_names(node)

    def _of_names(self, node: exp.Expression) -> Names:
        if not self._reading.isdisjoint(_tables(node)):
            return self._all
        names = [[part.name.lower() for part in column.parts] for column in node.find_all(exp.Column)]
        return _NONE.union(*map(self._of_column, [*names, *_loose_names(node)]))

    def _of_join(self, join: exp.Join) -> Names:
        """What chooses the row of a joined table, or makes it."""
        condition = join.args.get("on")
        chosen = self._of(condition) if condition is not None else _NONE
        using = [self._of_column([part.name.lower()]) for part in join.args.get("using") or []]
        return chosen.union(self._of_names(join.this), *using)

    def _of_column(self, parts: list[str]) -> Names:
        """Of `column`, `table.column`, or either with fields behind it."""
        if parts[0] == self._raw:
            return self._named(parts[1:]) or self._all
        if len(parts) > 1 and parts[0] in self._joined:
            return self._joined[parts[0]]
        known = [self._features[part] for part in parts if part in self._features]
        found = self._named(parts)
        unknown = _NONE if known or found else self._unknown
        return found.union(unknown, *known, *self._joined.values())

    def _named(self, parts: Iterable[str]) -> Names:
        return frozenset(self._columns[part] for part in parts if part in self._columns)


def _expands(*nodes: exp.Expression) -> bool:
    """Whether it stands for columns that it does not name."""
    return any(node.find(exp.Star, exp.Columns, exp.PositionalColumn) for node in nodes)


def _loose_names(node: exp.Expression) -> list[list[str]]:
    """What DuckDB may take for a column though SQLGlot does not: `secret.trim()`, `date_trunc(secret, at)`."""
    found = node.find_all(exp.Identifier, exp.Var)
    return [[name.name.lower()] for name in found if not isinstance(name.parent, _KNOWN_PLACES)]


def _queries_of_raw(select: exp.Select) -> set[str]:
    """All queries of WITH where one of them reads `raw`: they may read each other."""
    queries = {cte.alias_or_name.lower(): cte for cte in select.find_all(exp.CTE)}
    return set(queries) if any("raw" in _tables(query) for query in queries.values()) else set()


def _tables(node: exp.Expression) -> set[str]:
    """The tables that it reads; what is no plain name, such as query('…'), may read `raw`."""
    tables = node.find_all(exp.Table)
    return {table.name.lower() if isinstance(table.this, exp.Identifier) else "raw" for table in tables}
