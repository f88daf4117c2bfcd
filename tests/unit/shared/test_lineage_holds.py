"""No feature changes with a withheld column that lineage does not name: statements that nobody meant, run in DuckDB."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from esteira.exceptions import BadInput, PipelineInvalid
from esteira.features import FeatureQuery, create_references
from esteira.lineage import trace_features
from esteira.pipeline import LoadedPipeline, load_pipeline
from esteira.schema import Row, quote
from esteira.statement import compile_statement

PIPELINE = """\
pipeline: clinic
task: classification
entity: [id]
label: {name: ill, sql: outcome > 0}
columns:
  id: {type: integer}
  age: {type: integer}
  secret: {type: integer}
  outcome: {type: integer, known: after}
reference:
  ref: {file: ref.csv, columns: {id: integer, code: integer, secret: integer}}
  places: {file: places.csv, columns: {code: integer, age: integer, v: integer}}
"""
CODES = {1: 2, 2: 3, 3: 1}

ALIASED = "raw AS r"
SOURCES = ["raw", ALIASED]
RENAMING = ["raw AS raw(id, secret, age)", "raw UNPIVOT INCLUDE NULLS (v FOR n IN (secret))"]
QUERIES = {
    "": [],
    "WITH w AS (SELECT secret AS v, _row AS id FROM raw) ": ["LEFT JOIN w ON w.id = {q}._row"],
    "WITH w AS (SELECT code AS v, id FROM ref) ": ["LEFT JOIN w ON w.id = {q}.secret", "LEFT JOIN w USING (id)"],
    "WITH raw AS (SELECT id, secret AS age, age AS secret, _row FROM raw) ": [],
}
JOINS = {
    "LEFT JOIN ref ON {q}.secret = ref.id": ["ref.code", "code", "struct_extract(ref, 'code')"],
    "LEFT JOIN ref ON {q}.secret = ref.id LEFT JOIN places USING (code)": ["code", "places.v", "v"],
    "LEFT JOIN ref ON {q}.secret = ref.id LEFT JOIN (SELECT ref.code AS v) l ON true": ["l.v", "v"],
    "LEFT JOIN (ref LEFT JOIN places ON ref.code = places.code) ON {q}.secret = ref.id": ["places.v", "v", "code"],
    "LEFT JOIN ref ON {q}.age = ref.id": ["ref.code", "code", "ref.secret"],
    "LEFT JOIN ref USING (secret)": ["ref.code", "code"],
    "NATURAL LEFT JOIN places": ["v", "places.code"],
    "NATURAL LEFT JOIN (SELECT id AS secret, code AS v FROM ref) l": ["l.v", "v"],
    "LEFT JOIN (SELECT {q}.secret AS v) l ON true": ["l.v", "v"],
    "LEFT JOIN raw AS other ON other._row = {q}._row": ["other.secret", "other.age", "struct_extract(other, 'secret')"],
    "LEFT JOIN (SELECT * FROM raw) o ON o._row = {q}._row": ["o.secret", "o.age"],
    "LEFT JOIN (SELECT struct_extract(o, 'secret') AS v FROM raw o) l ON true": ["l.v", "v"],
    "LEFT JOIN query('SELECT secret AS v FROM raw') l ON true": ["l.v", "v"],
}
VALUES = [
    *("{q}.age", "{q}.secret", "{q}.id", "age", "secret", "id", "#1", "#2", "#3", "#4", "f", "g", "code", "v"),
    *("secret.abs()", "struct_extract({q}, 'secret')", "({q}).secret", "hash({q})", "COLUMNS('sec.*')"),
    *("(SELECT {q}.secret)", "(SELECT struct_extract(o, 'secret') FROM raw o)", "{{'age': secret}}.age"),
    *("list_sum([x + secret for x in [1]])", "list_sum(list_transform([1], lambda age: age + secret))"),
    "date_part(CASE secret WHEN 1 THEN 'year' ELSE 'day' END, DATE '2013-01-31')",
]
NAMES = ["f", "g", "code", "v", "age", "secret"]


@st.composite
def statements(draw: st.DrawFn) -> str:
    """Many of them are refused, and most of the others have a feature that the secret changes."""
    query = draw(st.sampled_from(list(QUERIES)))
    join = draw(st.sampled_from(["", *QUERIES[query], *JOINS]))
    source = draw(st.sampled_from(SOURCES * 6 + RENAMING))
    offered = JOINS.get(join, ["w.v", "v"] if join else [])
    aliases = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    value = st.sampled_from(offered) | st.sampled_from(VALUES) if offered else st.sampled_from(VALUES)
    select = ", ".join(f"{draw(value)} AS {alias}" for alias in aliases)
    q = "r" if source == ALIASED else "raw"
    return query + f"SELECT {select} FROM {source} {join}".format(q=q)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pipelines") / "clinic"
    home.mkdir()
    (home / "pipeline.yaml").write_text(PIPELINE)
    (home / "features.sql").write_text("SELECT age FROM raw")
    rows = CODES.items()
    (home / "ref.csv").write_text("id,code,secret\n" + "".join(f"{id_},{code},{code}\n" for id_, code in rows))
    (home / "places.csv").write_text("code,age,v\n" + "".join(f"{id_},{code},{code}0\n" for id_, code in rows))
    with duckdb.connect(":memory:") as connection:
        create_references(connection, home, load_pipeline(home).spec.reference)
        for name in ("ref", "places"):
            connection.sql(f"FROM {quote(name)}").write_parquet(str(home / f"{name}.parquet"))
    return home


def compiled(home: Path, sql: str) -> tuple[LoadedPipeline, str]:
    (home / "features.sql").write_text(sql)
    pipeline = load_pipeline(home)
    try:
        return pipeline, compile_statement(pipeline).sql
    except PipelineInvalid:
        assume(False)
        raise


def answers(home: Path, pipeline: LoadedPipeline, statement: str) -> Iterator[dict[str, str]]:
    """The features of a row that differs in its secret alone, as often as there are secrets."""
    query = FeatureQuery(statement, pipeline.columns, {name: home / f"{name}.parquet" for name in ("ref", "places")})
    for secret in CODES:
        row: Row = {"id": 1, "age": 2, "secret": secret}
        try:
            yield {name: repr(found) for name, found in query.run([row]).items()}
        except (BadInput, PipelineInvalid):
            event("not computed")
    query.close()


@given(statements())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_feature_that_changes_with_a_column_derives_from_it(clinic: Path, sql: str) -> None:
    pipeline, statement = compiled(clinic, sql)
    found = list(answers(clinic, pipeline, statement))
    lineage = trace_features(sql, ["id", "age", "secret"], [name for row in found[:1] for name in row])
    for name, derived in lineage.items():
        if len({row[name] for row in found}) > 1:
            event("a feature changes")
            assert "secret" in derived, (sql, name)
