"""From which raw columns each feature derives, read off features.sql.

Too many rather than too few: what a feature withholds follows from it. A column of a joined table derives from the raw
columns that its join asks for, for they choose the row. What cannot be told (a star, a whole row, a subquery's names)
is taken to derive from all that it may.
"""

from collections.abc import Iterable

import sqlglot
from sqlglot import exp

from esteira.pipeline import LoadedPipeline
from esteira.redaction import Redaction, resolve
from esteira.statement import Statement

Names = frozenset[str]
_NONE: Names = frozenset()


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
        joins = select.args.get("joins") or []
        self._columns = {column.lower(): column for column in columns}
        self._all: Names = frozenset(columns)
        self._raw = source.this.alias_or_name.lower() if source else "raw"
        self._joins = {join.this.alias_or_name.lower(): join for join in joins}
        self._queries = {cte.alias_or_name.lower(): cte for cte in select.find_all(exp.CTE)}
        self._joined: dict[str, Names] = {}
        self._features: dict[str, Names] = {}
        for projection in select.expressions:
            name = projection.alias_or_name.lower()
            self._features[name] = self._of(projection) | self._features.get(name, _NONE)

    def feature(self, name: str) -> Names:
        return self._features.get(name.lower(), self._all)  # unnamed: it came out of a star

    def _of(self, node: exp.Expression) -> Names:
        if node.find(exp.Star, exp.Columns):
            return self._all
        read = [self._of_column([part.name.lower() for part in column.parts]) for column in node.find_all(exp.Column)]
        return self._of_queries(node).union(*read)

    def _of_column(self, parts: list[str]) -> Names:
        """Of `column`, `table.column`, or either with fields behind it."""
        if len(parts) > 1 and self._raw in parts[:-1]:
            return self._named(parts) or self._all
        tables = [part for part in parts[:-1] if part in self._joins]
        if tables:
            return _NONE.union(*map(self._of_join, tables))
        if parts[0] == self._raw:
            return self._all
        found = self._named(parts) | self._features.get(parts[-1], _NONE)
        if parts[0] in self._joins:
            found |= self._of_join(parts[0])
        return found or self._of_joins()

    def _named(self, parts: Iterable[str]) -> Names:
        return frozenset(self._columns[part] for part in parts if part in self._columns)

    def _of_joins(self) -> Names:
        return _NONE.union(*map(self._of_join, self._joins))

    def _of_join(self, table: str) -> Names:
        """What chooses the row of a joined table."""
        if table not in self._joined:
            self._joined[table] = _NONE  # the condition names the table itself
            join = self._joins[table]
            condition = join.args.get("on")
            using = [part.name.lower() for part in join.args.get("using") or []]
            chosen = self._of(condition) if condition is not None else _NONE
            self._joined[table] = chosen | self._named(using) | self._mentioned(join.this)
        return self._joined[table]

    def _mentioned(self, node: exp.Expression) -> Names:
        """Of what stands in a subquery every name that is a raw column's, whatever table it is of."""
        if node.find(exp.Star) and "raw" in _tables(node):
            return self._all
        read = [self._named(part.name.lower() for part in column.parts) for column in node.find_all(exp.Column)]
        return self._of_queries(node).union(*read)

    def _of_queries(self, node: exp.Expression) -> Names:
        """Of all queries of WITH, where one of them is read: they may read each other."""
        if not self._queries.keys() & _tables(node):
            return _NONE
        queries, self._queries = self._queries, {}
        found = _NONE.union(*(self._mentioned(query) for query in queries.values()))
        self._queries = queries
        return found


def _tables(node: exp.Expression) -> set[str]:
    return {table.name.lower() for table in node.find_all(exp.Table)}
