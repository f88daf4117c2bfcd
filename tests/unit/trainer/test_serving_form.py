from pathlib import Path

import msgspec

from esteira.release import REFERENCE
from releases import build_release
from trainer.serving_form import prove_form, stress_rows


def test_stress_rows_find_no_difference_and_are_counted(tmp_path: Path) -> None:
    built = build_release(tmp_path)
    proved = prove_form(built.folder, built.release, built.release.form)
    assert (proved.dialect, proved.rows) == ("sqlite", 400)
    assert proved.stress_rows > 300
    assert (built.folder / REFERENCE).exists()


def test_stress_rows_find_what_no_row_of_the_dataset_shows(tmp_path: Path) -> None:
    built = build_release(tmp_path)
    assert built.release.form.statement is not None
    wrong = built.release.form.statement.replace("raw.town, towns.size", "upper(raw.town) AS town, towns.size")
    assert wrong != built.release.form.statement
    form = prove_form(built.folder, built.release, msgspec.structs.replace(built.release.form, statement=wrong))
    assert (form.dialect, form.statement, form.stress_rows) == ("duckdb", None, 0)
    assert "SQLite gives" in form.reason
    assert not (built.folder / REFERENCE).exists()


def test_stress_rows_hold_missing_values_bounds_and_odd_texts(tmp_path: Path) -> None:
    rows = list(stress_rows(build_release(tmp_path).release))
    prices, towns = {row[2] for row in rows}, {row[3] for row in rows}
    assert {None, 0.0, 1e15, 1e-300} <= prices
    assert min(price for price in prices if isinstance(price, float)) == 0  # the declared minimum
    assert {None, "", "ß", "x" * 20} <= towns
    assert rows == list(stress_rows(build_release(tmp_path / "again").release))
