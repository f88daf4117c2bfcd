"""All rules of values in one file: accepted rows are stored, refused ones set aside, with line and reasons."""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest
from sqlalchemy import Engine, text

from contract.values.forms import good_fields, unquote, write_csv
from esteira.bucket import Bucket
from esteira.events import RawDataUploaded
from esteira.pushes import Delivery
from esteira.schema import show
from etl.handlers import Handlers
from etl.workbench import Workbench, make_workbenches
from value_rules import CASES, Absent, Case, Refused, write_pipeline

SAYABLE = [case for case in CASES if not isinstance(case.csv, Absent)]


@pytest.fixture
def workbenches(tmp_path: Path) -> Iterator[dict[str, Workbench]]:
    write_pipeline(tmp_path / "pipelines")
    made = make_workbenches(tmp_path / "pipelines")
    yield made
    made["rules"].close()


def reason(case: Case) -> str:
    assert isinstance(case.of_csv, Refused)
    what = case.of_csv.what if case.of_csv.what.startswith("line: ") else f"{case.column}: {case.of_csv.what}"
    return f"{what}, got {show(unquote(str(case.csv)))}" if case.of_csv.shown else what


def test_good_rows_are_kept_and_refused_ones_named(
    handlers: Handlers, bucket: Bucket, engine: Engine, workbenches: dict[str, Workbench]
) -> None:
    rows = [{**good_fields(at), case.column: str(case.csv), "outcome": "60"} for at, case in enumerate(SAYABLE)]
    generation = bucket.write_if("raw/rules/all.csv", write_csv(rows).encode(), None)
    event = RawDataUploaded(bucket=bucket.name, object="raw/rules/all.csv", generation=generation)
    handlers.receive(event, Delivery(event_id="one", attributes={}, data=b""))
    refused = [case for case in SAYABLE if isinstance(case.of_csv, Refused)]
    (found,) = handlers.ingestions("rules")
    assert (found["status"], found["rows"], found["quarantined"]) == ("done", len(SAYABLE), len(refused))
    table = pyarrow.parquet.read_table(io.BytesIO(bucket.read(found["quarantine"])))
    assert table["reasons"].to_pylist() == [[reason(case)] for case in refused]
    lines = dict(enumerate(write_csv(rows).split("\n"), 1))
    assert all(lines[row["line"]] == row["text"] for row in table.to_pylist())
    with engine.connect() as connection:
        kept = {row[0] for row in connection.execute(text("SELECT _entity FROM features_rules"))}
    assert kept == {str(at) for at, case in enumerate(SAYABLE) if case not in refused}
