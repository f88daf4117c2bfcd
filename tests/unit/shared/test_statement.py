from pathlib import Path

import pytest

from esteira.exceptions import PipelineInvalid
from esteira.pipeline import load_pipeline
from esteira.statement import Statement, compile_statement
from releases import write_pipeline


def compiled(tmp_path: Path, sql: str) -> Statement:
    folder = write_pipeline(tmp_path).folder
    (folder / "features.sql").write_text(sql)
    return compile_statement(load_pipeline(folder))


@pytest.mark.parametrize(
    "sql, names",
    [
        ("SELECT price FROM raw;", ["price"]),
        ("-- leading\n/* and more */ SELECT price FROM raw -- trailing", ["price"]),
        ("SELECT price FROM raw; -- trailing", ["price"]),
        ("SELECT 'now()' AS now, price FROM raw", ["now", "price"]),
        ("SELECT r.price FROM raw AS r LEFT JOIN towns t ON t.town = r.town", ["price"]),
        (
            "WITH t AS (SELECT town AS name, size FROM towns) SELECT t.size FROM raw LEFT JOIN t ON name = town",
            ["size"],
        ),
        ("SELECT 'select;' AS a, /* SELECT */ price FROM raw", ["a", "price"]),
    ],
)
def test_a_row_local_select_compiles(tmp_path: Path, sql: str, names: list[str]) -> None:
    statement = compiled(tmp_path, sql)
    assert [feature.name for feature in statement.features] == names
    assert "_row AS _row," in statement.sql


def test_kinds_follow_the_types_of_duckdb(tmp_path: Path) -> None:
    sql = "SELECT price, price > 1 AS dear, town, price::DECIMAL(9, 2) AS exact FROM raw"
    kinds = [feature.kind for feature in compiled(tmp_path, sql).features]
    assert kinds == ["numeric", "numeric", "categorical", "numeric"]


@pytest.mark.parametrize(
    "sql, line, message",
    [
        ("SELEC price FROM raw", 1, "not SQL"),
        ("SELECT (price FROM raw", 1, "not SQL"),
        ("-- one\n\nSELECT price,\n  nope\nFROM raw", 4, "nope"),
        ("SELECT price,\n delay AS d FROM raw", 2, "delay is known only after the prediction"),
        ("SELECT price,\n sum(price) AS s FROM raw", 2, "aggregate"),
        ("SELECT price,\n histogram(price) AS s FROM raw", 2, "aggregate"),
        ("SELECT price,\n lag(price) OVER (ORDER BY at) AS l FROM raw", 2, "window"),
        ("SELECT DISTINCT price FROM raw", 1, "DISTINCT"),
        ("SELECT price FROM raw LIMIT 3", 1, "LIMIT"),
        ("SELECT price FROM raw OFFSET 3", 1, "OFFSET"),
        ("SELECT price FROM raw WHERE price > 1", 1, "WHERE"),
        ("SELECT price FROM raw USING SAMPLE 10%", 1, "sample"),
        ("SELECT unnest([1, 2]) AS u FROM raw", 1, "unnest"),
        ("SELECT price,\n-- random()\n\nrandom() AS r FROM raw", 4, "random()"),
        ("SELECT price,\n now()::VARCHAR AS n FROM raw", 2, "now()"),
        ("SELECT price,\n current_timestamp::VARCHAR AS n FROM raw", 2, "clock"),
        ("SELECT price,\n uuid()::VARCHAR AS n FROM raw", 2, "uuid()"),
        ("SELECT price FROM raw; SELECT 2", 1, "exactly one SELECT"),
        ("SELECT price FROM raw UNION ALL SELECT price FROM raw", 1, "exactly one SELECT"),
        ("CREATE TABLE x AS SELECT 1", 1, "exactly one SELECT"),
        ("-- nothing", 1, "exactly one SELECT"),
        ("SELECT 1 AS one", 1, "must read FROM raw"),
        ("SELECT size FROM towns", 1, "must read FROM raw"),
        ("SELECT size FROM raw JOIN towns ON true", 1, "LEFT JOIN"),
        ("SELECT price,\n #3 AS t FROM raw", 2, "names no column"),
        ("SELECT size FROM raw\nNATURAL LEFT JOIN towns", 2, "NATURAL"),
        ("WITH raw AS (SELECT town AS price, _row FROM raw)\nSELECT price FROM raw", 1, "WITH raw"),
        ("SELECT price,\n age FROM raw AS raw(id, age)", 2, "read as it is"),
        ("SELECT n FROM raw\nUNPIVOT INCLUDE NULLS (v FOR n IN (town))", 1, "read as it is"),
        ("SELECT price,\n raw.at AS at FROM raw", 2, "cast it"),
        ("SELECT price,\n town AS PRICE FROM raw", 2, "unique"),
        ("SELECT price,\n price AS _x FROM raw", 2, "begin with _"),
    ],
)
def test_a_mistake_is_named_by_file_and_line(tmp_path: Path, sql: str, line: int, message: str) -> None:
    with pytest.raises(PipelineInvalid) as raised:
        compiled(tmp_path, sql)
    assert f"features.sql:{line}: " in str(raised.value)
    assert message in str(raised.value)


def test_a_slice_that_is_no_feature_is_refused(tmp_path: Path) -> None:
    folder = write_pipeline(tmp_path).folder
    with (folder / "pipeline.yaml").open("a") as file:
        file.write("gates: {slices: [colour]}\n")
    with pytest.raises(PipelineInvalid, match="'colour', which is no feature"):
        compile_statement(load_pipeline(folder))
