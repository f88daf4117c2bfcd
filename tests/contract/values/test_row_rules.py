"""The rules of rows and columns, over every form of request and over files; and how much is named at once."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.dialects.site import Site
from contract.values.forms import FEATURES, JSON_FORMS, NAMES, Form, Texts, good, good_fields, message, write_csv
from esteira.fields import NULL_VALUES
from esteira_cli.predict.columns import PipelineColumns, lay_out
from esteira_cli.predict.records import FileRefused as NotPredicted
from esteira_cli.predict.sources import open_source
from etl.parts import encode_quarantine
from etl.prepare import Preparation
from etl.records import Records
from etl.source import FileRefused, check_header
from etl.workbench import Workbench
from row_rules import COLUMNS, ROWS, TAKEN, ColumnCase, RowCase
from value_rules import NO_TEXT, write_pipeline

BY_COLUMN = pytest.mark.parametrize("case", COLUMNS, ids=lambda case: case.name)
BY_ROW = pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)
ROW_FORMS = [name for name, form in JSON_FORMS.items() if form.columns is None]
COLUMN_FORMS = [name for name, form in JSON_FORMS.items() if form.columns is not None]


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Workbench(write_pipeline(tmp_path_factory.mktemp("pipelines")))
    yield made
    made.close()


class Twice(dict[str, str]):
    """A row that has a column twice: a wrong value, then its own."""

    def __init__(self, row: Mapping[str, str], column: str) -> None:
        super().__init__(row)
        self._column = column

    def items(self) -> Any:  # type: ignore[override]
        """The members, in the order in which they are written."""
        return [(self._column, '"x"'), *super().items()]


def changed(row: dict[str, str], case: ColumnCase) -> dict[str, str]:
    if case.change == "drop":
        return {name: text for name, text in row.items() if name != case.column}
    return Twice(row, case.column) if case.change == "twice" else {**row, case.column: "1"}


def answered(answer: tuple[int, Any], said: str, place: str = "") -> None:
    if said == TAKEN:
        assert answer[0] == 200, answer
    else:
        assert (answer[0], f"{place}: {said}" in message(answer[1])) == (400, True), answer


# -- columns -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ROW_FORMS)
@BY_COLUMN
def test_a_row_brings_names_of_its_own(site: Site, form: str, case: ColumnCase) -> None:
    used = JSON_FORMS[form]
    answer = site.post(used.url, used.write([good(1), changed(good(2), case), good(3)]), used.content_type)
    answered(answer, case.rows, used.place(1, case.column))


@pytest.mark.parametrize("form", COLUMN_FORMS)
@BY_COLUMN
def test_names_belong_to_all_rows(site: Site, form: str, case: ColumnCase) -> None:
    used = JSON_FORMS[form]
    if case.change == "twice":
        return  # as a list of names has it: see below
    rows = [changed(good(at), case) for at in range(2)]
    places = {
        "MLflow dataframe_split": f"dataframe_split.columns[{len(NAMES)}]",
        "Open Inference tensors": f"inputs[{len(NAMES)}].name",
    }
    place = used.columns if case.change == "drop" else places.get(form, f"inputs.{case.column}")
    answered(site.post(used.url, used.write(rows)), case.columns, str(place))


def test_a_name_that_stands_twice_is_refused_where_names_are_a_list(site: Site) -> None:
    split = {"columns": [*NAMES, "count"], "data": [[*map(json.loads, good().values()), 1]]}
    answer = site.post("/invocations", {"dataframe_split": split})
    answered(answer, "column 'count' is there twice", f"dataframe_split.columns[{len(NAMES)}]")
    tensors = json.loads(JSON_FORMS["Open Inference tensors"].write([good()]))["inputs"]
    answer = site.post("/v2/models/rules/infer", {"inputs": [*tensors, tensors[1]]})
    answered(answer, "column 'count' is there twice", f"inputs[{len(NAMES)}].name")


def fields(case: ColumnCase, more: str = "") -> str:
    """A CSV file; more columns stand at its end."""
    names, values = [*good_fields()], [*good_fields().values()]
    if case.change == "drop":
        at = names.index(case.column)
        del names[at], values[at]
    elif case.column != more:
        names, values = [*names, case.column], [*values, "1"]
    if more:
        names, values = [*names, more], [*values, "1"]
    return ",".join(names) + "\n" + ",".join(values) + "\n"


@BY_COLUMN
def test_a_csv_body_has_a_header(site: Site, case: ColumnCase) -> None:
    answered(site.post("/invocations", fields(case), "text/csv"), case.columns, "line 1")


@BY_COLUMN
def test_a_file_that_trains_has_all_columns_and_no_other(workbench: Workbench, case: ColumnCase) -> None:
    data = fields(case, "outcome").encode()
    if case.etl == TAKEN:
        assert check_header(data, workbench.pipeline.columns) == [*NAMES, "outcome"]
        return
    with pytest.raises(FileRefused) as caught:
        check_header(data, workbench.pipeline.columns)
    assert str(caught.value) == case.etl


@BY_COLUMN
def test_a_file_that_is_predicted_has_those_that_every_row_needs(site: Site, case: ColumnCase, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(fields(case))
    columns = PipelineColumns.of(site.client.get("/pipelines/rules").get_json())
    with open_source(tmp_path / "rows.csv", NULL_VALUES) as source:
        if case.predict == TAKEN:
            layout = lay_out(columns, source.names)
            assert (layout.left_out, layout.absent) in (([case.column], []), ([], [case.column]))
            return
        with pytest.raises(NotPredicted) as caught:
            lay_out(columns, source.names)
        assert str(caught.value) == case.predict


# -- rows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ROW_FORMS)
@BY_ROW
def test_a_row_is_an_object(site: Site, form: str, case: RowCase) -> None:
    used = JSON_FORMS[form]
    body = used.write([good(1), {"only": "@"}, good(3)]).replace('{"only": @}', case.row)
    said = case.native if form == "native" else case.others
    place = used.place(1, "x").removesuffix(".x").removesuffix(", column x")
    status, answer = site.post(used.url, body, used.content_type)
    told = said if "JSON" in said else f"{place}: {said}"
    assert (status, told in message(answer)) == (400, True), answer


@BY_ROW
def test_a_line_of_a_csv_body_has_a_field_for_each_column(site: Site, case: RowCase) -> None:
    text = write_csv([good_fields(1), good_fields(2)]).splitlines()
    answer = site.post("/invocations", "\n".join([text[0], text[1], case.csv, text[2]]), "text/csv")
    answered(answer, case.of_csv, "line 3")


@BY_ROW
def test_a_line_of_a_file_costs_itself(workbench: Workbench, case: RowCase) -> None:
    text = write_csv([{**good_fields(at), "outcome": ""} for at in (1, 2)]).splitlines()
    records = Records("\n".join([text[0], text[1], case.csv, text[2]]).encode())
    with workbench.cursor() as cursor:
        preparation = Preparation(workbench, cursor, records.header())
        refusals = [r for batch in records.batches(len(records.header()), 10) for r in preparation.add(batch)]
        assert preparation.rows() == 2
    set_aside = pq.read_table(pa.BufferReader(encode_quarantine(refusals, records.raw))).to_pylist()
    assert [(one["line"], one["reasons"]) for one in set_aside] == ([] if case.etl == TAKEN else [(3, [case.etl])])


@pytest.mark.parametrize("form", ["native", "MLflow instances", "Vertex AI instances", "SageMaker JSON lines"])
@pytest.mark.parametrize("count", [0, 1, 1000, 1001])
def test_a_request_has_1_to_1000_rows(site: Site, form: str, count: int) -> None:
    used = JSON_FORMS[form]
    status, answer = site.post(used.url, used.write([good(at) for at in range(count)]), used.content_type)
    if 1 <= count <= 1000:
        assert status == 200
    else:
        assert (status, f"holds {count} rows; send 1 to 1000" in message(answer)) == (400, True)


def test_a_file_that_trains_is_csv(workbench: Workbench, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1]}), tmp_path / "rows.parquet")
    lines = JSON_FORMS["SageMaker JSON lines"].write([good()]).encode()
    for data, said in (((tmp_path / "rows.parquet").read_bytes(), "a Parquet file"), (lines, "no CSV file")):
        with pytest.raises(FileRefused, match=said):
            check_header(data, workbench.pipeline.columns)


def test_a_file_that_trains_may_have_no_rows(workbench: Workbench) -> None:
    records = Records((",".join([*NAMES, "outcome"]) + "\n").encode())
    with workbench.cursor() as cursor:
        preparation = Preparation(workbench, cursor, records.header())
        assert [refusal for batch in records.batches(15, 10) for refusal in preparation.add(batch)] == []
        assert preparation.rows() == 0


# -- all at once -------------------------------------------------------------------------------------------------------


def wrong_rows() -> Texts:
    """125 rows with two wrong values each."""
    return [{**good(at), "units": "-1", "price": '"dear"'} for at in range(125)]


def said_of(used: Form) -> list[str]:
    """The first hundred of them, in the order of rows and columns."""
    return [
        f"{used.place(at, name)}: {what}"
        for at in range(50)
        for name, what in (
            ("units", "below the minimum 0, got -1"),
            ("price", "expected a finite number, got 'dear'"),
        )
    ]


@pytest.mark.parametrize("form", JSON_FORMS)
def test_the_first_100_of_250_wrong_values_are_named_and_the_others_counted(site: Site, form: str) -> None:
    used = JSON_FORMS[form]
    status, answer = site.post(used.url, used.write(wrong_rows()), used.content_type)
    datatype = ", which is no FP64" if "tensors" in form else ""
    expected = [told + (datatype if "dear" in told else "") for told in said_of(used)]
    assert (status, message(answer)) == (400, "; ".join([*expected, "and 150 more"]))


@pytest.mark.parametrize("form", COLUMN_FORMS)
def test_wrong_names_of_columns_are_named_with_all_wrong_values_of_the_others(site: Site, form: str) -> None:
    used = JSON_FORMS[form]
    rows = [{"colour": '"x"', **row} for row in wrong_rows()]
    for row in rows:
        del row["sent"], row["units"]
    status, answer = site.post(used.url, used.write(rows))
    wrong = ["unknown column 'colour'", "column 'units' is missing", "column 'sent' is missing", "got 'dear'"]
    assert (status, [message(answer).count(what) for what in wrong]) == (400, [1, 1, 1, 97])
    assert message(answer).endswith("and 28 more")


def test_a_header_of_csv_with_wrong_names_too(site: Site) -> None:
    rows = [{"colour": "red", **good_fields(at), "price": "dear"} for at in range(2)]
    for row in rows:
        del row["units"]
    told = message(site.post("/invocations", write_csv(rows), "text/csv")[1])
    price = "column price: expected a finite number, got 'dear'"
    names = "line 1: unknown column 'colour'; remove it; line 1: column 'units' is missing"
    assert told == f"{names}; line 2, {price}; line 3, {price}"


def test_names_of_columns_are_named_with_the_form_or_where_there_are_no_rows(site: Site) -> None:
    split = {"columns": NAMES[:1], "data": [[1, 2]]}
    told = message(site.post("/invocations", {"dataframe_split": split})[1])
    assert ("column 'units' is missing" in told, "data[0]: holds 2 values" in told) == (True, True)
    told = message(site.post("/invocations", {"dataframe_split": {**split, "data": []}})[1])
    assert ("column 'units' is missing" in told, "holds 0 rows" in told) == (True, True)


def test_the_native_answer_has_them_one_by_one(site: Site) -> None:
    used = JSON_FORMS["native"]
    error = site.post(used.url, used.write(wrong_rows()))[1]["error"]
    assert [f"{problem['path']}: {problem['message']}" for problem in error["problems"]] == said_of(used)
    assert (error["code"], error["more"]) == ("bad_input", 150)
    few = site.post(used.url, used.write(wrong_rows()[:50]))[1]["error"]
    assert (len(few["problems"]), "more" in few) == (100, False)


def test_a_csv_body_too(site: Site) -> None:
    rows = [{**good_fields(at), "units": "-1", "price": "dear"} for at in range(125)]
    status, answer = site.post("/invocations", write_csv(rows), "text/csv")
    told = [
        f"line {at + 2}, column {name}: {what}"
        for at in range(50)
        for name, what in (
            ("units", "below the minimum 0, got -1"),
            ("price", "expected a finite number, got 'dear'"),
        )
    ]
    assert (status, message(answer)) == (400, "; ".join([*told, "and 150 more"]))


def test_features_too(site: Site) -> None:
    answer = site.post(FEATURES.url, FEATURES.write([{"amount": "true", "memo": "5"} for _ in range(125)]))[1]
    problems = answer["error"]["problems"]
    assert [problem["path"] for problem in problems] == [
        f"features[{i}].{n}" for i in range(50) for n in ("amount", "memo")
    ]
    assert answer["error"]["more"] == 150


def test_outcomes_too(site: Site) -> None:
    """Entities, labels and times alike, in the order of the body."""
    outcomes = [{"entity": {"id": "x"}, "label": "late", "event_time": "now"} for _ in range(125)]
    outcomes[0] = {"entity": {"id": 1}, "label": 2}
    answer = site.post("/pipelines/rules/feedback", {"outcomes": outcomes})[1]
    members = ("entity.id", "label", "event_time")
    places = ["outcomes[0].label", *(f"outcomes[{at}].{name}" for at in range(1, 34) for name in members)]
    assert [problem["path"] for problem in answer["error"]["problems"]] == places
    assert (len(places), answer["error"]["more"]) == (100, 273)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ('{"entity": {"id": 1}, "label": NaN}', "outcomes[1].label: expected true, false, 1 or 0, got NaN"),
        ('{"entity": {"id": 1}, "label": 1e999}', "outcomes[1].label: expected true, false, 1 or 0, got Infinity"),
        ('{"entity": {"id": NaN}, "label": 1}', "outcomes[1].entity.id: expected an integer of 64 bits, got NaN"),
        ('{"entity": {"id": "x"}, "label": 1}', "outcomes[1].entity.id: expected an integer of 64 bits, got 'x'"),
    ],
)
def test_an_outcome_is_named_too(site: Site, outcome: str, said: str) -> None:
    good_one = '{"entity": {"id": 1}, "label": 1}'
    status, answer = site.post("/pipelines/rules/feedback", f'{{"outcomes": [{good_one}, {outcome}]}}')
    assert (status, message(answer)[: len(said)]) == (400, said)


@pytest.mark.parametrize("form", [name for name in JSON_FORMS if "lines" not in name])
@pytest.mark.parametrize("body", ["%s", '{"row": %s}', "[%s]"])
def test_a_body_of_another_form_is_told_what_to_send(site: Site, form: str, body: str) -> None:
    used = JSON_FORMS[form]
    key = next(iter(json.loads(used.write([good()]))))
    row = json.dumps({name: json.loads(text) for name, text in good().items()})
    status, answer = site.post(used.url, body.replace("%s", row))
    assert (status, key in message(answer)) == (400, True), answer


@pytest.mark.parametrize("form", [name for name in JSON_FORMS if "lines" not in name])
def test_what_json_does_not_have_is_named_with_all_else(site: Site, form: str) -> None:
    used = JSON_FORMS[form]
    rows = [
        {**good(1), "amount": "NaN"},
        {**good(2), "memo": '"\\ud800"', "price": "-1"},
        {**good(3), "price": "1e999"},
    ]
    status, answer = site.post(used.url, used.write(rows), used.content_type)
    assert status == 400
    for place in ((0, "amount"), (1, "memo"), (1, "price"), (2, "price")):
        assert f"{used.place(*place)}: " in message(answer)


@pytest.mark.parametrize("form", JSON_FORMS)
@pytest.mark.parametrize("data", [b"\xff", b"\xed\xa0\x80", b"caf\xe9"])
def test_bytes_that_are_not_utf_8_are_named_with_all_else(site: Site, form: str, data: bytes) -> None:
    used = JSON_FORMS[form]
    body = used.write([good(1), {**good(2), "memo": '"@"', "price": "-1"}]).encode().replace(b"@", data)
    status, answer = site.post(used.url, body, used.content_type)
    assert (status, f"{used.place(1, 'memo')}: {NO_TEXT}" in message(answer)) == (400, True)
    assert f"{used.place(1, 'price')}: below the minimum" in message(answer)


def test_bytes_that_are_not_utf_8_are_named_by_their_line_in_csv(site: Site, workbench: Workbench) -> None:
    data = write_csv([{**good_fields(at), "memo": "caf@"} for at in (1, 2)]).encode().replace(b"@", b"\xe9")
    answered(site.post("/invocations", data, "text/csv"), "is not UTF-8", "line 2")
    records = Records(data)
    (batch,) = records.batches(len(NAMES), 10)
    assert [(bad.line, bad.reason) for bad in batch.malformed] == [(2, "not valid UTF-8"), (3, "not valid UTF-8")]


def test_every_line_that_is_not_json_is_named(site: Site) -> None:
    used = JSON_FORMS["SageMaker JSON lines"]
    body = used.write([good(1), {**good(2), "price": "-1", "amount": "NaN"}]).encode()
    assert message(site.post(used.url, body, used.content_type)[1]).count("line 2, column") == 2
    status, answer = site.post(used.url, b"[\n" + body + b"\n\xff\n", used.content_type)
    assert (status, message(answer).count("line ")) == (400, 3)


@pytest.mark.parametrize(
    "data",
    [
        b'{"rows": [{"\\ud800": 1}]}',
        b'{"rows": [{"a": NaN}], "explain": NaN}',
        b'{"rows": [{"\\ud800": NaN}], "\\ud800": 1}',
        b'{"rows": NaN}',
        b"NaN",
        b'{"rows": [NaN]}',
    ],
)
def test_it_is_refused_wherever_it_stands(site: Site, data: bytes) -> None:
    assert site.post("/pipelines/rules/predict", data)[0] == 400


def test_what_is_passed_over_must_be_json_too(site: Site) -> None:
    split = JSON_FORMS["MLflow dataframe_split"].write([good()])
    assert site.post("/invocations", split)[0] == 200
    assert site.post("/invocations", split.replace('"data"', '"index": [NaN], "data"'))[0] == 400
    tensors = JSON_FORMS["Open Inference tensors"].write([good()])
    assert site.post("/v2/models/rules/infer", tensors)[0] == 200
    for more in ('{"id": "\\ud800", ', '{"parameters": {"a": NaN}, ', '{"unknown": Infinity, '):
        assert site.post("/v2/models/rules/infer", more + tensors[1:])[0] == 400
