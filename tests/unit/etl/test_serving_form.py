from pathlib import Path

import pytest

from etl.prepare import Preparation
from etl.records import Records
from etl.workbench import Workbench, make_workbenches

YAML = """\
pipeline: shop
task: regression
entity: [id]
label: {name: paid, sql: paid}
columns:
  id: {type: integer}
  price: {type: number, nullable: true}
  town: {type: string}
  paid: {type: number, nullable: true, known: after}
reference:
  towns: {file: towns.csv, columns: {town: string, size: integer}}
"""
JOINED = "FROM raw LEFT JOIN towns ON towns.town = raw.town"


def proved(folder: Path, features: str, rows: str) -> tuple[str | None, Workbench]:
    home = folder / "shop"
    home.mkdir()
    (home / "pipeline.yaml").write_text(YAML)
    (home / "features.sql").write_text(f"SELECT {features} {JOINED}")
    (home / "towns.csv").write_text("town,size\nParis,3\nOslo,1\n")
    workbench = make_workbenches(folder)["shop"]
    records = Records(f"id,price,town,paid\n{rows}".encode())
    names = records.header()
    with workbench.cursor() as cursor:
        preparation = Preparation(workbench, cursor, names)
        for batch in records.batches(len(names), 2):
            assert not preparation.add(batch)
        return preparation.proved_form(preparation.features()), workbench


def test_a_file_whose_every_row_gives_the_same_is_proved(tmp_path: Path) -> None:
    rows = "1,2.5,Paris,1\n2,NA,Nowhere,2\n3,1e300,Oslo,3\n4,-0.0,Oslo,\n"
    form, workbench = proved(tmp_path, "price / 3 AS third, raw.town, size * 2 AS size", rows)
    assert workbench.serving_form is not None
    assert form == workbench.serving_form.sha256


def test_one_row_that_differs_is_enough(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    form, workbench = proved(tmp_path, "upper(raw.town) AS town", "1,1,Paris,1\n2,1,Gießen,2\n3,1,Oslo,3\n")
    assert workbench.serving_form is not None
    assert form is None
    (record,) = [r for r in caplog.records if "differs" in r.message]
    assert (record.__dict__["feature"], record.__dict__["sqlite"]) == ("town", "'GIESSEN'")


def test_rows_that_sqlite_leaves_to_duckdb_disprove_nothing(tmp_path: Path) -> None:
    form, _ = proved(tmp_path, "price / (price - 1) AS odd", "1,1,Paris,1\n2,2,Oslo,2\n")
    assert form is not None


def test_a_statement_without_the_form_is_none_the_worse(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    form, workbench = proved(tmp_path, "round(price, 1) AS price", "1,1.25,Paris,1\n")
    assert (form, workbench.serving_form) == (None, None)
    assert "DuckDB alone" in caplog.text


def test_the_copy_of_the_reference_tables_goes_with_the_workbench(tmp_path: Path) -> None:
    _, workbench = proved(tmp_path, "size", "1,1.25,Paris,1\n")
    assert workbench.serving_form is not None
    file = workbench.serving_form._file
    assert file.exists()
    workbench.close()
    assert not file.exists()
