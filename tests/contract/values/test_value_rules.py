"""Every rule of values, over everything that reads them: requests in each form, and files."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.dialects.site import Site
from contract.values.forms import (
    FEATURES,
    JSON_FORMS,
    good,
    good_fields,
    message,
    unquote,
    write_csv,
)
from esteira.fields import NULL_VALUES
from esteira.schema import Refused as Breaks
from esteira.schema import check_value
from esteira_cli.client.encoding import bodies
from esteira_cli.client.errors import PredictorRefused
from esteira_cli.predict.records import Malformed
from esteira_cli.predict.sources import open_source
from etl.parts import encode_quarantine
from etl.prepare import Preparation
from etl.records import Records
from etl.workbench import Workbench
from predictor.decoding import BodyDecoder
from predictor.inference import JsonQuestion
from value_rules import CASES, GOOD, NO_TEXT, Absent, Case, Outcome, Refused, python_value, told, write_pipeline

BY_NAME = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def shown(value: Any) -> str | None:
    """A typed value as the features show it."""
    moment = value.replace(tzinfo=None) if getattr(value, "tzinfo", None) else value
    with duckdb.connect() as connection:
        (found,) = connection.execute("SELECT CAST(? AS VARCHAR)", [moment]).fetchone()  # type: ignore[misc]
    return found  # type: ignore[no-any-return]


def feature(site: Site, row: int, column: str) -> Any:
    """What the predictor made of a value of the request before."""
    names = [one.name for one in site.built.release.features]
    features = site.log.last[row]["features"]  # type: ignore[attr-defined]
    return features[names.index("memo" if column == "memo" else f"{column}_text")]


def hold(site: Site, answer: tuple[int, Any], case: Case, outcome: Outcome, place: str, value: Any) -> None:
    """The answer is the outcome: the same value, or exactly this problem in this place."""
    if isinstance(outcome, Refused):
        assert answer[0] == 400
        assert message(answer[1]).startswith(f"{place}: {told(outcome, value)}")
        assert message(answer[1]).count(f"{outcome.what}") == 1
    else:
        assert answer[0] == 200, answer
        assert feature(site, 1, case.column) == (shown(outcome) if outcome is not None else None)


# -- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", JSON_FORMS)
@BY_NAME
def test_a_request_in_json(site: Site, form: str, case: Case) -> None:
    used = JSON_FORMS[form]
    answer = site.post(used.url, used.write([good(1), {**good(2), case.column: case.json}, good(3)]), used.content_type)
    if form == "Open Inference tensors" and case.json.startswith("["):
        assert (answer[0], "is not nested as its shape" in message(answer[1])) == (400, True)  # an array is a row there
        return
    hold(site, answer, case, case.becomes, used.place(1, case.column), python_value(case.json))


@pytest.mark.parametrize("case", [c for c in CASES if c.column in ("amount", "memo")], ids=lambda case: case.name)
def test_a_request_with_features(site: Site, case: Case) -> None:
    """A feature is a nullable number or a nullable string."""
    answer = site.post(FEATURES.url, FEATURES.write([{}, {case.column: case.json}]))
    if isinstance(case.becomes, Refused):
        hold(site, answer, case, case.becomes, FEATURES.place(1, case.column), python_value(case.json))
        return
    assert answer[0] == 200
    found = logged(site)[0 if case.column == "amount" else 1]
    assert repr(float(found) if isinstance(found, int) else found) == repr(case.becomes)


def logged(site: Site) -> Any:
    """The features of the second row."""
    return site.log.last[1]["features"]  # type: ignore[attr-defined]


def test_a_category_that_training_has_not_seen_is_scored_as_a_missing_one(site: Site) -> None:
    rows = [{"amount": "7", "memo": '"never seen"'}, {"amount": "7", "memo": "null"}]
    predictions = site.post(FEATURES.url, FEATURES.write(rows))[1]["predictions"]
    assert predictions[0]["score"] == predictions[1]["score"]


@BY_NAME
def test_a_request_in_csv(site: Site, case: Case) -> None:
    if isinstance(case.csv, Absent):
        return
    text = write_csv([good_fields(1), {**good_fields(2), case.column: case.csv}, good_fields(3)])
    answer = site.post("/invocations", text.encode(), "text/csv")
    line = 4 if "\n" in case.csv else 3
    outcome = Refused(NO_TEXT, shown=False) if "\0" in case.csv else case.of_csv
    if isinstance(outcome, Refused):
        assert answer[0] == 400
        assert message(answer[1]).startswith(f"line {line}, column {case.column}: {outcome.what}")
    else:
        hold(site, answer, case, outcome, "", None)


# -- the compiled decoder, and the rules -------------------------------------------------------------------------------


@BY_NAME
def test_the_compiled_type_and_the_rules(site: Site, case: Case) -> None:
    release = site.built.release
    column = next(column for column in release.columns if column.name == case.column)
    position = [column.name for column in release.columns].index(case.column)
    body = JSON_FORMS["native"].write([{**good(), case.column: case.json}]).encode()
    decoded = BodyDecoder(release.columns, release.features).decode(body)
    if isinstance(case.becomes, Refused):
        assert decoded is None
        with pytest.raises(Breaks) as caught:
            check_value(column, python_value(case.json))
        assert str(caught.value) == told(case.becomes, python_value(case.json))
        return
    checked = JsonQuestion(body)._check(release)
    for found in (decoded, checked):
        if found is not None:
            assert found.rows is not None
            value = found.rows[0][position]
            assert (repr(value), type(value)) == (repr(case.becomes), type(case.becomes))


# -- files that train --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Workbench(write_pipeline(tmp_path_factory.mktemp("pipelines")))
    yield made
    made.close()


@BY_NAME
def test_a_file_that_trains(workbench: Workbench, case: Case) -> None:
    """The good rows are kept; a refused one is set aside with its line, as it came, and why."""
    if isinstance(case.csv, Absent):
        return
    rows = [good_fields(1), {**good_fields(2), case.column: case.csv}, good_fields(3)]
    records = Records(write_csv([{**row, "outcome": ""} for row in rows]).encode())
    with workbench.cursor() as cursor:
        preparation = Preparation(workbench, cursor, records.header())
        refusals = [r for batch in records.batches(len(records.header()), 10) for r in preparation.add(batch)]
        part = preparation.features().to_pylist()
    set_aside = pq.read_table(pa.BufferReader(encode_quarantine(refusals, records.raw))).to_pylist()
    outcome = case.of_csv
    if isinstance(outcome, Refused):
        (one,) = set_aside
        reason = outcome.what if outcome.what.startswith("line:") else f"{case.column}: {outcome.what}"
        reason += f", got {_cut(unquote(case.csv))!r}" if outcome.shown else ""
        assert (one["line"], one["reasons"], case.csv in one["text"]) == (3, [reason], True)
        assert [row["id_text"] for row in part] == ["1", "3"]
    else:
        assert set_aside == []
        name = "memo" if case.column == "memo" else f"{case.column}_text"
        assert [row[name] for row in part][1] == (None if outcome is None else shown(outcome))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"


# -- files that are predicted ------------------------------------------------------------------------------------------


def by_predict(site: Site, path: Path) -> tuple[int, Any]:
    """Reads a file of one row as `esteira predict` does, and asks."""
    columns = {column.name: column for column in site.built.release.columns}
    with open_source(path, NULL_VALUES) as source:
        (record,) = source.records()
        if isinstance(record, Malformed):
            return 400, {"message": f"rows[1].: line: {record.reason}"}
        row = {name: source.value(columns[name], v) for name, v in zip(source.names, record.values, strict=True)}
        try:
            (body,) = bodies("rows", [GOOD, row])
        except PredictorRefused as error:
            return 400, {"message": str(error.problems[0])}
    return site.post("/pipelines/rules/predict", body.data)


@BY_NAME
def test_a_csv_file_that_is_predicted(site: Site, case: Case, tmp_path: Path) -> None:
    if isinstance(case.csv, Absent):
        return
    (tmp_path / "rows.csv").write_bytes(write_csv([{**good_fields(), case.column: case.csv}]).encode())
    answer = by_predict(site, tmp_path / "rows.csv")
    if isinstance(case.of_csv, Refused):
        assert (answer[0], case.of_csv.what in message(answer[1])) == (400, True), answer
    else:
        hold(site, answer, case, case.of_csv, "", None)


@BY_NAME
def test_a_parquet_file_that_is_predicted(site: Site, case: Case, tmp_path: Path) -> None:
    value = python_value(case.json)
    table = {name: [one] for name, one in GOOD.items() if name != case.column}
    if case.parquet is not None:
        return
    if value == {}:
        value = {"a": 1}  # Parquet has no object without a member
    pq.write_table(pa.table({**table, case.column: [value]}), tmp_path / "rows.parquet")
    answer = by_predict(site, tmp_path / "rows.parquet")
    hold(site, answer, case, case.of_parquet, f"rows[1].{case.column}", value)
