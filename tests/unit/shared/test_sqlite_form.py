import itertools
import json
import math
import sqlite3
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from esteira.exceptions import PipelineInvalid
from esteira.features import FeatureQuery, create_references
from esteira.pipeline import load_pipeline
from esteira.runtime import ReleaseRuntime
from esteira.schema import Column, check_row
from esteira.sqlite_form import NotTranslatable, copy_references, translate
from esteira.sqlite_json import JsonQuery
from esteira.sqlite_query import SqliteQuery, Undecided, connect
from esteira.statement import compile_statement
from releases import build_release, raw_rows

COLUMNS = [
    Column(name="a", type="integer", nullable=True),
    Column(name="b", type="integer", nullable=True),
    Column(name="x", type="number", nullable=True),
    Column(name="s", type="string", nullable=True),
    Column(name="t", type="timestamp", nullable=True),
    Column(name="d", type="date", nullable=True),
    Column(name="f", type="boolean", nullable=True),
]
ROWS = list(
    itertools.product(
        (None, -7, 0, 3, 2**31 - 1),
        (None, -2, 0, 5),
        (None, -2.5, 0.0, 7.25),
        (None, "", "Abc", "12", "É%"),
        (None, datetime(2024, 2, 29, 23, 59, 58, 500000, UTC), datetime(1701, 1, 2, tzinfo=UTC)),
        (None, date(2024, 12, 31)),
        (None, True, False),
    )
)[::31]
TRANSLATED = [
    *("a + b * 2 - 1", "-a", "a * x", "a / b", "a // b", "a % b", "a // 5", "a % -3", "x / 2", "x / x", "a / 2.0"),
    *(
        "a = b",
        "a <> b",
        "a < x",
        "a IS NULL",
        "s IS NOT NULL",
        "a IN (1, 3)",
        "s IN ('Abc', 'x')",
        "a BETWEEN -2 AND 3",
    ),
    *("f AND a > 0", "f OR a IS NULL", "NOT f", "CASE WHEN a > 0 THEN s ELSE 'no' END", "IF(a > b, a, b)"),
    *("COALESCE(a, b, 0)", "NULLIF(a, 3)", "GREATEST(a, b)", "LEAST(a, x)", "a IS DISTINCT FROM b"),
    *("s || 'x'", "length(s)", "lower(s)", "upper(s)", "substring(s, 1, 2)", "s LIKE 'A%'", "s < 'B'"),
    *("abs(a)", "floor(x)", "ceil(x)", "sqrt(x)", "ln(x)", "exp(x)", "CAST(a AS DOUBLE)", "x::BIGINT", "a::VARCHAR"),
    *(
        "year(t)",
        "month(t)",
        "day(t)",
        "hour(t)",
        "minute(t)",
        "dayofweek(t)",
        "isodow(t)",
        "dayofyear(t)",
        "quarter(t)",
    ),
    *("EXTRACT(hour FROM t)", "date_part('dow', t)", "year(d)", "dayofweek(d)", "t > TIMESTAMP '2000-01-01 00:00:00'"),
    *("(SELECT a + 1)", "a + (b - a) % 7", "s::DOUBLE", "CAST(s AS BIGINT)"),
]


def over(sql: str) -> tuple[FeatureQuery, JsonQuery]:
    statement = f"SELECT raw._row AS _row, {sql} AS feature FROM raw"
    form = translate(statement, COLUMNS)
    return FeatureQuery(statement, COLUMNS, {}), JsonQuery(form, COLUMNS, lambda: connect(":memory:"), ["feature"])


def number(value: Any) -> Any:
    """What the encoder makes of it: what is not finite is missing."""
    if isinstance(value, str):
        return value
    return None if value is None or value - value != 0 else float(value)


def alone(query: JsonQuery, row: Any) -> Any:
    """What native code gives."""
    try:
        found = query.run_json([row])
    except Undecided:
        return None
    return None if found is None else json.loads(found)


@pytest.mark.parametrize("sql", TRANSLATED)
def test_what_sqlite_answers_duckdb_answers_too(sql: str) -> None:
    try:
        whole, single = over(sql)
    except NotTranslatable:
        assert "TIMESTAMP" in sql
        return
    answered = 0
    for row in ROWS:
        try:
            ((_, found),) = single.run_rows([row])
        except Undecided:
            assert alone(single, row) is None
            continue
        assert alone(single, row) in (None, json.loads(msgspec.json.encode([[found]])))
        (names, ((*expected,),)) = whole.run_rows([row])
        assert number(found) == number(expected[names.index("feature")]), (sql, row)
        answered += 1
    assert answered > len(ROWS) / 15


@pytest.mark.parametrize(
    "sql",
    [
        *("t + INTERVAL 1 DAY", "date_diff('day', t, t)", "date_trunc('hour', t)", "strftime(t, '%H')", "s[1:2]"),
        *("TRY_CAST(s AS DOUBLE)", "x::DECIMAL(9, 2)", "round(x, 1)", "regexp_matches(s, 'x')", "trim(s)", "hash(s)"),
        *(
            "s ILIKE 'a'",
            "contains(s, 'x')",
            "list_sum([a])",
            "epoch(t)",
            "date_part('epoch', t)",
            "a::TINYINT",
            "a & 1",
        ),
    ],
)
def test_what_is_not_known_to_be_the_same_stays_with_duckdb(sql: str) -> None:
    with pytest.raises(NotTranslatable):
        over(sql)


@pytest.mark.parametrize(
    ("sql", "row"), [("a / b", {"a": 1, "b": 0}), ("s::DOUBLE", {"s": "x"}), ("sqrt(x)", {"x": -1.0})]
)
def test_where_the_dialects_may_part_sqlite_does_not_answer(sql: str, row: dict[str, Any]) -> None:
    _, single = over(sql)
    with pytest.raises(Undecided):
        single.run_rows([tuple(row.get(column.name) for column in COLUMNS)])


@pytest.mark.parametrize("value", [2**31 + 1, -(2**40), 2**63 - 1])
def test_integers_beyond_what_was_proved_are_left_to_duckdb(value: int) -> None:
    _, single = over("a * 3")
    with pytest.raises(Undecided, match="beyond"):
        single.run_rows([(value, *[None] * 6)])


def test_the_reference_pipeline_gives_the_same_in_both(tmp_path: Path) -> None:
    pipeline = load_pipeline(Path(__file__).parents[3] / "pipelines" / "flights")
    statement = compile_statement(pipeline)
    before = [column for column in pipeline.columns if column.known == "before"]
    form = translate(statement.sql, before)
    with duckdb.connect(":memory:") as connection:
        create_references(connection, pipeline.folder, pipeline.spec.reference)
        target = connect(str(tmp_path / "reference.sqlite"))
        copy_references(connection, pipeline.spec.reference, statement.sql, target)
        files = {name: tmp_path / f"{name}.parquet" for name in pipeline.spec.reference}
        for name, file in files.items():
            connection.sql(f"FROM {name}").write_parquet(str(file))
        keys = connection.sql("SELECT origin, time_hour FROM weather ORDER BY hash(time_hour) LIMIT 60").fetchall()
        planes = [*(key for (key,) in connection.sql("SELECT tailnum FROM planes LIMIT 58").fetchall()), None, "N0"]
    assert {name for (name,) in target.execute("SELECT name FROM sqlite_master WHERE type = 'index'")} == {
        "weather_joined",
        "planes_joined",
    }
    target.close()
    rows = [
        (
            hour.year,
            hour.month,
            hour.day,
            1435,
            59 + 37 * at,
            "UA",
            1,
            plane,
            origin,
            "LAX",
            2475,
            hour.hour,
            at % 60,
            hour,
        )
        for at, ((origin, hour), plane) in enumerate(zip(keys, planes, strict=True))
    ]
    single = SqliteQuery.over(form, before, tmp_path / "reference.sqlite")
    names, expected = FeatureQuery(statement.sql, before, files).run_rows(rows)
    found = [dict(zip(single.names, row, strict=True)) for row in single.run_rows(rows)]
    for at, wanted in enumerate(expected):
        assert {name: found[at][name] for name in names if name != "_row"} == {
            name: value for name, value in zip(names, wanted, strict=True) if name != "_row"
        }
    assert any(row["temperature"] is not None and row["seats"] is not None for row in found)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ("1.5::DECIMAL(5,2)", "DECIMAL"),
        ("'NaN'::DOUBLE", "cannot"),
        ("99999999999999999999::HUGEINT", "64 bits"),
        ("[1]", "INTEGER"),
    ],
)
def test_reference_tables_that_sqlite_cannot_hold_stay_with_duckdb(values: str, why: str) -> None:
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"CREATE TABLE t AS SELECT {values} AS v")
        with pytest.raises(NotTranslatable, match=why):
            copy_references(connection, ["t"], "SELECT 1", sqlite3.connect(":memory:"))


def test_a_join_that_matches_twice_is_refused() -> None:
    target = connect(":memory:")
    target.execute("CREATE TABLE twice (k)")
    target.execute("INSERT INTO twice VALUES (1), (1)")
    form = translate("SELECT raw._row AS _row, k FROM raw LEFT JOIN twice ON k = raw.a", COLUMNS)
    with pytest.raises(PipelineInvalid, match="2 rows for one"):
        SqliteQuery(form, COLUMNS, lambda: target).run_rows([(1, *[None] * 6)])


def test_a_release_scores_the_same_with_either_form(tmp_path: Path) -> None:
    both = [build_release(tmp_path / str(sqlite), sqlite=sqlite) for sqlite in (True, False)]
    single, whole = (ReleaseRuntime(built.folder, built.sha256) for built in both)
    rows = [(row["id"], datetime.fromisoformat(row["at"]), row["price"], row["town"]) for row in raw_rows(300, 9)]
    assert single.single is not None
    assert whole.single is None
    assert (single.score_rows(single.feature_rows(rows)) == whole.score_rows(whole.feature_rows(rows))).all()


def test_what_sqlite_leaves_open_duckdb_answers(tmp_path: Path) -> None:
    runtime = ReleaseRuntime((built := build_release(tmp_path)).folder, built.sha256)
    row = (1, None, 2e15, "Oslo")  # a price beyond what the form was proved for
    assert runtime.single is not None
    with pytest.raises(Undecided):
        runtime.single.run_rows([row])
    assert runtime.feature_rows([row]) == [(2e15, math.inf, "Oslo", 1)]


def test_a_release_with_the_form_answers_without_duckdb(tmp_path: Path) -> None:
    built = build_release(tmp_path)
    code = f"""
import sys
from pathlib import Path
from esteira.runtime import ReleaseRuntime
runtime = ReleaseRuntime(Path({str(built.folder)!r}), {built.sha256!r})
print(runtime.score_rows(runtime.feature_rows([(1, None, 5.0, "Paris")])), "duckdb" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split()[-1] == "False"


def test_native_code_gives_what_python_gives_of_the_form(tmp_path: Path) -> None:
    built = build_release(tmp_path)
    runtime = ReleaseRuntime(built.folder, built.sha256)
    assert runtime.single is not None
    columns = [column for column in built.release.columns if column.known == "before"]
    rows = [tuple(check_row(columns, row, "")[0].values()) for row in raw_rows(300, seed=3)]
    found = runtime.single.run_json(rows)
    assert found is not None
    assert json.loads(found) == json.loads(msgspec.json.encode(runtime.feature_rows(rows)))
    assert runtime.feature_json(rows) == found
    escaped = [(*rows[0][:-1], 'a "town"')]
    assert runtime.single.run_json(escaped) is None
    assert runtime.feature_json(escaped) is None
