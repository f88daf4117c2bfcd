from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from esteira.exceptions import BadInput, PipelineInvalid
from esteira.features import FeatureQuery, create_references
from esteira.pipeline import Reference
from esteira.schema import Column

COLUMNS = [Column(name="price", type="number", nullable=True), Column(name="town", type="string", nullable=True)]
STATEMENT = "SELECT raw._row AS _row, price * 2 AS twice, town FROM raw"


def test_rows_keep_their_order_and_their_nulls() -> None:
    query = FeatureQuery(STATEMENT, COLUMNS, {})
    found = query.run([{"price": 2.0, "town": "b"}, {"price": None, "town": None}, {"price": 1.0, "town": "'; --"}])
    assert found == {"twice": [4.0, None, 2.0], "town": ["b", None, "'; --"]}
    assert query.run([]) == {"twice": [], "town": []}


def test_threads_share_one_query() -> None:
    query = FeatureQuery(STATEMENT, COLUMNS, {})

    def ask(number: int) -> bool:
        rows = [{"price": float(number + i), "town": str(number)} for i in range(5)]
        return query.run(rows)["twice"] == [2.0 * (number + i) for i in range(5)]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(400)))


@pytest.mark.parametrize("keys", ["('a'), ('a')", "('b')"])
def test_a_join_that_changes_the_number_of_rows_is_refused(tmp_path: Path, keys: str) -> None:
    file = tmp_path / "t.parquet"
    with duckdb.connect() as connection:
        connection.sql(f"SELECT * FROM (VALUES {keys}) v(name)").write_parquet(str(file))
    query = FeatureQuery("SELECT raw._row AS _row, name FROM raw JOIN t ON name = town", COLUMNS, {"t": file})
    with pytest.raises(PipelineInvalid, match="a join must match one row at most"):
        query.run([{"price": 1.0, "town": "a"}])


def test_a_value_that_the_statement_cannot_cast_is_bad_input() -> None:
    query = FeatureQuery("SELECT raw._row AS _row, CAST(town AS INTEGER) AS n FROM raw", COLUMNS, {})
    with pytest.raises(BadInput, match=r"features.sql cannot compute"):
        query.run([{"price": 1.0, "town": "x"}])
    assert query.run([{"price": 1.0, "town": "7"}]) == {"n": [7]}


@pytest.mark.parametrize(
    "value",
    [
        "strptime(town, '%Y') > '2013-01-01'",
        "error('no ' || town)",
        "timezone(town, TIMESTAMP '2013-01-01') > '2013-01-01'",
        "regexp_matches('a', town || '[')",
    ],
)
def test_a_value_that_a_function_does_not_take_is_bad_input(value: str) -> None:
    query = FeatureQuery(f"SELECT raw._row AS _row, {value} AS n FROM raw", COLUMNS, {})
    with pytest.raises(BadInput, match=r"features.sql cannot compute"):
        query.run([{"price": 1.0, "town": "nowhere"}])


def test_a_statement_reads_no_file_of_the_machine(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    query = FeatureQuery(f"SELECT raw._row AS _row, a FROM raw LEFT JOIN '{secret}' ON true", COLUMNS, {})
    with pytest.raises(PipelineInvalid, match=r"does not run: PermissionException$"):
        query.run([{"price": 1.0, "town": "x"}])


@pytest.mark.parametrize(
    "content, message",
    [
        ("town,size\na,1\nb,2.5\n", r"towns.csv:3: size is '2.5', declared integer"),
        ("town,size\na,1e3\n", r"towns.csv:2: size is '1e3'"),
        ("town,size\na,99999999999999999999\n", "Could not convert"),
        ("size,town\n1,a\n", r"towns.csv:1: has size, town; declared are town, size"),
        ("town;size\na;1\n", r"towns.csv:1: has town;size"),
        ("", r"towns.csv:1: has no columns"),
        ("town,size\na,1,2\n", r"towns.csv:2: "),
    ],
)
def test_a_reference_file_that_is_not_as_declared_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "towns.csv").write_text(content)
    towns = Reference(file="towns.csv", columns={"town": "string", "size": "integer"})
    with duckdb.connect(":memory:") as connection, pytest.raises(PipelineInvalid, match=message):
        create_references(connection, tmp_path, {"towns": towns})


def test_a_reference_file_keeps_its_integers(tmp_path: Path) -> None:
    (tmp_path / "towns.csv").write_text("town,size\na, 12 \nb,NA\n")
    towns = Reference(file="towns.csv", columns={"town": "string", "size": "integer"})
    with duckdb.connect(":memory:") as connection:
        create_references(connection, tmp_path, {"towns": towns})
        assert connection.execute("SELECT size, typeof(size) FROM towns").fetchall() == [
            (12, "BIGINT"),
            (None, "BIGINT"),
        ]
