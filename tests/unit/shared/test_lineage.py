"""Which raw columns a feature derives from: none is overlooked, whatever the statement looks like."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esteira.features import FeatureQuery
from esteira.lineage import trace_features
from esteira.pipeline import LoadedPipeline, load_pipeline
from esteira.schema import check_row
from esteira.statement import compile_statement
from pages import ROOT
from releases import build_release, raw_rows, write_pipeline

COLUMNS = ["a", "b", "c", "Key"]


def traced(select: str, rest: str = "FROM raw") -> dict[str, set[str]]:
    found = trace_features(f"SELECT {select} {rest};", COLUMNS, ["x", "y"])
    return {name: set(columns) for name, columns in found.items()}


@pytest.mark.parametrize(
    "select, rest, expected",
    [
        ("raw.a AS x, 1 AS y", "FROM raw", (set("a"), set())),
        ("a + B AS x, CASE WHEN r.c THEN 1 END AS y", "FROM raw AS r", (set("ab"), set("c"))),
        ("a AS x, x * 2 AS y", "FROM raw", (set("a"), set("a"))),
        ("raw.a AS y, t.size AS x", "FROM raw LEFT JOIN t ON t.k = raw.key AND t.b = 3", ({"Key"}, set("a"))),
        ("size AS x, 1 AS y", "FROM raw LEFT JOIN t USING (key)", ({"Key"}, set())),
        ("u.s AS x, t.a AS y", "FROM raw LEFT JOIN t ON t.k = raw.b LEFT JOIN u ON u.k = t.k", (set("b"), set("b"))),
        ("(SELECT max(w.v) FROM w WHERE w.k = raw.c) AS x, 1 AS y", "FROM raw", (set("c"), set())),
        (
            "s.v AS x, 1 AS y",
            "FROM raw LEFT JOIN (SELECT r.a AS v, r.b AS k FROM raw r) s ON s.k = 1",
            (set(COLUMNS), set()),
        ),
        ("s.w AS x, 1 AS y", "FROM raw LEFT JOIN (SELECT raw.a AS w) s ON true", (set("a"), set())),
        ("s.v AS x, 1 AS y", "FROM raw LEFT JOIN (SELECT * FROM raw) s ON s.k = 1", (set(COLUMNS), set())),
        ("*", "FROM raw", (set(COLUMNS), set(COLUMNS))),
        ("COLUMNS('a') AS x, raw.b AS y", "FROM raw", (set(COLUMNS), set("b"))),
        ("hash(raw) AS x, 1 AS y", "FROM raw", (set(COLUMNS), set())),
        ("a.part AS x, raw.b.part AS y", "FROM raw", (set("a"), set("b"))),
        ("raw.a AS code, code AS x, 1 AS y", "FROM raw LEFT JOIN t ON raw.b = t.id", (set("ab"), set())),
        ("b.trim() AS x, date_trunc(c, a) AS y", "FROM raw", (set("b"), set("ac"))),
        ("extract(b FROM a) AS x, a + INTERVAL 1 DAY AS y", "FROM raw", (set("a"), set("a"))),
        ("(SELECT struct_extract(r, 'b') FROM raw r) AS x, 1 AS y", "FROM raw", (set(COLUMNS), set())),
        ("q.v AS x, 1 AS y", "FROM raw LEFT JOIN query('FROM raw') q ON true", (set(COLUMNS), set())),
        ("r.b AS x, 1 AS y", "FROM raw LEFT JOIN raw AS r ON r.a = raw.a", (set(COLUMNS), set())),
        ("u.s AS x, 1 AS y", "FROM raw LEFT JOIN t ON t.k = raw.b LEFT JOIN u USING (code)", (set("b"), set())),
        (
            "l.w AS x, 1 AS y",
            "FROM raw LEFT JOIN t ON t.k = raw.b LEFT JOIN (SELECT t.v AS w) l ON true",
            (set("b"), set()),
        ),
        ("COLUMNS('b(.*)') AS '\\1', z AS x, a AS y", "FROM raw", (set(COLUMNS), set("a"))),
        ("s.v AS x, s.k AS y", "FROM raw LEFT JOIN (SELECT * FROM t) s ON s.k = raw.b", (set("b"), set("b"))),
        ("list_sum([v + a for v in [1]]) AS x, 1 AS y", "FROM raw", (set("a"), set())),
    ],
)
def test_a_feature_derives_from_what_it_reads_and_from_what_joins_ask_for(
    select: str, rest: str, expected: tuple[set[str], set[str]]
) -> None:
    assert traced(select, rest) == {"x": expected[0], "y": expected[1]}


def test_a_named_subquery_that_reads_raw_derives_from_all_columns() -> None:
    sql = "WITH s AS (SELECT raw.c AS v, 1 AS k FROM raw) SELECT raw.a AS y, s.v AS x FROM raw LEFT JOIN s ON s.k = 1"
    assert trace_features(sql, COLUMNS, ["x", "y"]) == {"x": frozenset(COLUMNS), "y": frozenset("a")}
    chained = "WITH s AS (SELECT raw.c AS v, 1 AS k FROM raw), t AS (SELECT v AS w, k FROM s)"
    for feature in ("t.w", "(SELECT w FROM t)"):
        sql = f"{chained} SELECT 1 AS y, {feature} AS x FROM raw LEFT JOIN t ON t.k = 1"
        assert trace_features(sql, COLUMNS, ["x", "y"]) == {"x": frozenset(COLUMNS), "y": frozenset()}
    sql = "WITH s AS (SELECT v, k FROM t) SELECT raw.a AS y, s.v AS x FROM raw LEFT JOIN s ON s.k = raw.b"
    assert trace_features(sql, COLUMNS, ["x", "y"]) == {"x": frozenset("b"), "y": frozenset("a")}


def test_what_the_flights_derive_from() -> None:
    pipeline = load_pipeline(ROOT / "pipelines" / "flights")
    names = [feature.name for feature in compile_statement(pipeline).features]
    found = trace_features(pipeline.features_sql, [c.name for c in pipeline.columns if c.known == "before"], names)
    assert found["seats"] == {"tailnum"}
    assert found["plane_age"] == {"year", "tailnum"}
    assert found["temperature"] == {"origin", "time_hour"}
    assert found["departure_minute"] == {"hour", "minute"}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[tuple[LoadedPipeline, FeatureQuery]]:
    built = build_release(tmp_path)
    references = {name: built.folder / file for name, file in built.release.reference.items()}
    query = FeatureQuery(built.release.statement, built.release.columns, references)
    yield write_pipeline(tmp_path / "again"), query
    query.close()


def test_no_feature_changes_with_a_column_that_it_does_not_derive_from(
    shop: tuple[LoadedPipeline, FeatureQuery],
) -> None:
    pipeline, query = shop
    rows: list[Any] = [check_row(pipeline.columns, row, "")[0] for row in raw_rows(60)]
    before = query.run(rows)
    columns = [column.name for column in pipeline.columns if column.known == "before"]
    lineage = trace_features(pipeline.features_sql, columns, list(before))
    assert {name: set(sources) for name, sources in lineage.items()} == {
        "price": {"price"},
        "huge": {"price"},
        "town": {"town"},
        "size": {"town"},
    }
    for column in columns:
        mixed = [{**row, column: other[column]} for row, other in zip(rows, rows[1:] + rows[:1], strict=True)]
        changed = {name for name, values in query.run(mixed).items() if values != before[name]}
        assert changed <= {name for name, sources in lineage.items() if column in sources}
