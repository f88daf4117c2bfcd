"""One file on the workbench, without Postgres or bucket."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esteira.exceptions import PipelineInvalid
from etl.prepare import Preparation, Refusal, count_reasons
from etl.records import Records
from etl.workbench import Workbench, make_workbenches

YAML = """\
pipeline: shop
task: {task}
entity: [id]
label: {{name: big, sql: {label}}}
columns:
  id: {{type: integer}}
  price: {{type: number, nullable: true, min: 0}}
  kind: {{type: string, values: [new, old]}}
  paid: {{type: number, nullable: true, known: after}}
"""
HEADER = "id,price,kind,paid\n"
SQL = "SELECT raw.price, raw.kind FROM raw"


def write(folder: Path, sql: str = SQL, task: str = "classification", label: str = "paid > 10") -> Path:
    (folder / "shop").mkdir(exist_ok=True)
    (folder / "shop" / "pipeline.yaml").write_text(YAML.format(task=task, label=label))
    (folder / "shop" / "features.sql").write_text(sql)
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    workbench = make_workbenches(write(tmp_path_factory.mktemp("pipelines")))["shop"]
    yield workbench
    workbench.close()


@contextmanager
def prepared(workbench: Workbench, data: bytes) -> Iterator[tuple[Preparation, list[Refusal]]]:
    records = Records(data)
    names = records.header()
    with workbench.cursor() as cursor:
        preparation = Preparation(workbench, cursor, names)
        refusals = [refusal for batch in records.batches(len(names), 3) for refusal in preparation.add(batch)]
        refusals += preparation.refuse_long_keys() + preparation.refuse_repeated()
        yield preparation, refusals


def said(refusals: list[Refusal]) -> dict[int, list[str]]:
    return {refusal.line: [str(reason) for reason in refusal.reasons] for refusal in refusals}


def features_of(tmp_path: Path, sql: str, rows: str, **changed: str) -> list[dict[str, Any]]:
    workbench = make_workbenches(write(tmp_path, sql, **changed))["shop"]
    with prepared(workbench, (HEADER + rows).encode()) as (preparation, _):
        found: list[dict[str, Any]] = preparation.features().to_pylist()
        return found


def test_a_refused_row_names_all_that_is_wrong_with_it(shop: Workbench) -> None:
    with prepared(shop, (HEADER + "1,2,new,\nx,-1,used,\n,1,,\n").encode()) as (preparation, refusals):
        assert preparation.rows() == 1
        assert said(refusals) == {
            3: [
                "id: expected an integer of 64 bits, got 'x'",
                "price: below the minimum 0, got '-1'",
                "kind: none of new, old, got 'used'",
            ],
            4: ["id: missing; expected integer", "kind: missing; expected string"],
        }


def test_reasons_are_counted_without_the_rows_own_values(shop: Workbench) -> None:
    with prepared(shop, (HEADER + "1,-1,new,\n2,-2,new,\n3\n").encode()) as (_, refusals):
        assert count_reasons(refusals) == {"price: below the minimum 0": 2, "line: expected 4 fields, got 1": 1}


def test_of_rows_with_one_key_the_first_line_wins(shop: Workbench) -> None:
    with prepared(shop, (HEADER + "1,1,new,\n1.0,2,new,\n2,3,new,\n01,4,new,\n").encode()) as (preparation, refusals):
        assert said(refusals) == {
            3: ["duplicate key '1': the key of line 2"],
            5: ["duplicate key '1': the key of line 2"],
        }
        assert sorted(preparation.keys()) == ["1", "2"]


def test_a_key_of_an_earlier_file_is_refused_with_its_object(shop: Workbench) -> None:
    with prepared(shop, (HEADER + "1,1,new,\n2,2,new,\n").encode()) as (preparation, _):
        known = preparation.refuse_known({"2": "raw/shop/0.csv"})
        assert said(known) == {3: ["duplicate key '2': already ingested from raw/shop/0.csv"]}
        assert preparation.keys() == ["1"]


def test_the_label_is_one_zero_or_unknown_and_columns_may_stand_in_any_order(shop: Workbench) -> None:
    data = b"paid,kind,price,id\n11,new,1,1\n10,old,,2\nNA,new,3,3\n"
    with prepared(shop, data) as (preparation, _):
        table: pa.Table = preparation.features()
    assert table.column_names == ["_entity", "_event_time", "_label", "_line", "price", "kind"]
    assert table["_label"].to_pylist() == [1.0, 0.0, None]
    assert table["price"].to_pylist() == [1.0, None, 3.0]
    assert table.schema.field("_event_time").type == pa.timestamp("us", tz="UTC")


def test_a_label_of_regression_is_a_number(tmp_path: Path) -> None:
    rows = features_of(tmp_path, SQL, "1,1,new,2.5\n2,1,new,\n", task="regression", label="paid * 2")
    assert [row["_label"] for row in rows] == [5.0, None]


def test_features_that_are_no_finite_number_are_missing(tmp_path: Path) -> None:
    sql = "SELECT raw.price / 0 AS ratio, 'nan'::DOUBLE AS odd, raw.price > 1 AS dear FROM raw"
    rows = features_of(tmp_path, sql, "1,2,new,\n")
    assert [(row["ratio"], row["odd"], row["dear"]) for row in rows] == [(None, None, 1.0)]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT raw.price FROM raw LEFT JOIN raw AS other ON other.kind = raw.kind", "gave 8 rows for 4"),
        (
            "SELECT raw.price, other.price AS before FROM raw LEFT JOIN raw AS other ON other.id = raw.id - 1",
            "row-local",
        ),
        ("SELECT CAST(raw.kind AS INTEGER) AS kind FROM raw", "Could not convert"),
    ],
)
def test_a_statement_that_is_not_row_local_or_fails_is_told(tmp_path: Path, sql: str, message: str) -> None:
    with pytest.raises(PipelineInvalid, match=message):
        features_of(tmp_path, sql, "1,1,new,\n2,2,new,\n3,3,old,\n4,4,old,\n")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": "paid"}, "classification needs a boolean"),
        ({"label": "kind", "task": "regression"}, "regression needs a number"),
        ({"label": "payed > 1"}, "payed"),
        ({"sql": f"SELECT raw.price AS {'x' * 64} FROM raw"}, "more than 63 bytes"),
        ({"sql": "SELECT content FROM raw LEFT JOIN read_text('/etc/hostname') ON true"}, "features.sql"),
    ],
)
def test_a_mistake_in_a_pipelines_folder_is_told_at_the_start(
    tmp_path: Path, changed: dict[str, str], message: str
) -> None:
    with pytest.raises(PipelineInvalid, match=message):
        make_workbenches(write(tmp_path, **changed))


def test_the_mistakes_of_all_pipelines_are_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, label="payed > 1")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "pipeline.yaml").write_text("pipeline: other\n")
    with pytest.raises(PipelineInvalid, match=r"(?s)other/pipeline.yaml:1: .*\n.*shop/pipeline.yaml.*payed"):
        make_workbenches(tmp_path)


CELLS = st.sampled_from(
    ["1", "2", "3.0", "x", "", "NA", "new", "old", "-1", '"', '"new"', "\0", "\ufeff", "1e999", "a,b"]
)
LINES = st.lists(st.lists(CELLS, min_size=0, max_size=5).map(",".join), max_size=15)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(LINES, st.binary(max_size=3), st.integers(0, 100))
def test_every_data_row_is_either_accepted_or_refused_and_never_both(
    shop: Workbench, lines: list[str], junk: bytes, place: int
) -> None:
    body = "\n".join(["1,1,new,5", *lines, "2,2,old,"]).encode()
    data = HEADER.encode() + body[:place] + junk + body[place:]
    rows = [number for number, line in enumerate(data.split(b"\n"), 1) if number > 1 and line not in (b"", b"\r")]
    with prepared(shop, data) as (preparation, refusals):
        accepted = preparation.features()["_line"].to_pylist()
    refused = [refusal.line for refusal in refusals]
    assert len(accepted) + len(refused) == len({*accepted, *refused})
    assert {*accepted, *refused} <= set(rows)
    if data.count(b'"') == 0:
        assert {*accepted, *refused} == set(rows)
    assert all(refusal.reasons for refusal in refusals)
