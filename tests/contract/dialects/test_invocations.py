"""`/invocations` answers as MLflow's own scoring server does, and as a container for SageMaker should."""

import csv
import io
import json
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

with warnings.catch_warnings():  # MLflow's, of its own types
    warnings.simplefilter("ignore")
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import scoring_server
    from mlflow.version import VERSION

from contract.dialects.site import HELD_OUT, ROW, Site, bad_json
from predictor.dialects.invocations import MLFLOW_VERSION

PATH = "/invocations"
NAMES = list(HELD_OUT[0])
GOOD: dict[str, Any] = {"dataframe_records": [ROW]}


class Model:
    """What MLflow's scoring server asks for predictions: the same release, in its own process."""

    metadata = None

    def __init__(self, site: Site) -> None:
        self._site = site

    def predict(self, data: Any) -> np.ndarray[Any, Any]:
        frame = data if isinstance(data, pd.DataFrame) else pd.DataFrame({n: list(v) for n, v in data.items()})
        rows = json.loads(frame.to_json(orient="records", double_precision=15))
        return np.array(self._site.expected([{name: row[name] for name in NAMES} for row in rows]))


def by_mlflow(site: Site, body: Any, content_type: str = "application/json") -> tuple[int, Any]:
    data = body if isinstance(body, str) else json.dumps(body)
    try:
        found = scoring_server.invocations(data, content_type, Model(site), None)
    except MlflowException as error:
        return error.get_http_status_code(), json.loads(error.serialize_as_json())
    return found.status, json.loads(found.response) if found.status == 200 else found.response


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in NAMES}


def as_csv(rows: list[dict[str, Any]], *, header: bool = True) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    if header:
        writer.writerow(NAMES)
    writer.writerows(["" if value is None else value for value in row.values()] for row in rows)
    return text.getvalue()


COMPLETE = [row for row in HELD_OUT if None not in row.values()]
FORMS: dict[str, Any] = {
    "split": {"dataframe_split": {"columns": NAMES, "data": [list(row.values()) for row in HELD_OUT]}},
    "split with index": {
        "dataframe_split": {"columns": NAMES, "index": [3], "data": [list(HELD_OUT[0].values())]},
    },
    "records": {"dataframe_records": HELD_OUT},
    "instances": {"instances": COMPLETE},  # MLflow takes no null in them
    "inputs": {"inputs": columns(HELD_OUT)},
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_answered_with_the_bits_of_scikit_learn_as_mlflow_does(site: Site, form: str) -> None:
    status, answer = site.post(PATH, FORMS[form])
    rows = HELD_OUT[:1] if "index" in form else COMPLETE if form == "instances" else HELD_OUT
    assert (status, answer) == (200, {"predictions": site.expected(rows)})
    assert by_mlflow(site, FORMS[form]) == (status, answer)


def test_csv_with_a_header_is_answered_as_mlflow_does(site: Site) -> None:
    text = as_csv(COMPLETE)
    assert site.post(PATH, text, "text/csv") == by_mlflow(site, text, "text/csv")


def test_csv_without_a_header_is_sagemakers(site: Site) -> None:
    expected = site.expected(HELD_OUT)
    assert site.post(PATH, as_csv(HELD_OUT, header=False), "text/csv") == (200, {"predictions": expected})
    answer = site.client.post(PATH, data=as_csv(HELD_OUT), content_type="text/csv", headers={"Accept": "text/csv"})
    assert [float(line) for line in answer.text.splitlines()] == expected
    assert answer.mimetype == "text/csv"


def test_json_lines_are_sagemakers(site: Site) -> None:
    lines = "\n".join(json.dumps(row) for row in HELD_OUT)
    answer = site.client.post(
        PATH, data=lines, content_type="application/jsonlines", headers={"Accept": "application/jsonlines"}
    )
    assert [json.loads(line) for line in answer.text.splitlines()] == site.expected(HELD_OUT)


def test_params_choose_the_output(site: Site, regression: Site) -> None:
    expected = site.expected(HELD_OUT[:9])
    body = {"dataframe_records": HELD_OUT[:9]}
    labels = site.post(PATH, {**body, "params": {"output": "label"}})[1]["predictions"]
    assert labels == [score >= 0.5 for score in expected]
    told = site.post(PATH, {**body, "params": {"output": "all"}})[1]["predictions"]
    assert [(one["score"], one["label"]) for one in told] == list(zip(expected, labels, strict=True))
    assert len({one["prediction_id"] for one in told}) == 9
    status, answer = regression.post(PATH, {**body, "params": {"output": "label"}})
    assert (status, "params.output" in answer["message"]) == (400, True)


def test_probes_answer_as_mlflows(site: Site) -> None:
    for path in ("/ping", "/health"):
        answer = site.client.get(path)
        assert (answer.status_code, answer.text, answer.mimetype) == (200, "\n", "application/json")
    assert site.client.get("/version").text == MLFLOW_VERSION == VERSION


def test_answers_name_the_release_and_the_request(site: Site) -> None:
    answer = site.client.post(PATH, json=GOOD)
    assert answer.headers["X-Model-Version"] == "v1"
    assert answer.headers["X-Request-Id"]


@pytest.mark.parametrize("what", bad_json(GOOD))
def test_a_bad_body_has_mlflows_error(site: Site, what: str) -> None:
    status, answer = site.post(PATH, bad_json(GOOD)[what])
    assert (status, answer["error_code"], set(answer)) == (400, "BAD_REQUEST", {"error_code", "message"})


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "exactly one of"),
        ({**GOOD, "instances": [ROW]}, "exactly one of"),
        ({"dataframe_split": {"columns": NAMES, "data": [[1, 2]]}}, "dataframe_split.data[0]"),
        ({"dataframe_split": {"columns": ["id", "id"], "data": [[1, 2]]}}, "dataframe_split.columns"),
        ({"dataframe_records": [ROW, {**ROW, "price": "x"}]}, "dataframe_records[1].price: expected a finite number"),
        ({"instances": [{**ROW, "nope": 1}]}, "instances[0].nope: unknown column"),
        ({"inputs": {**columns([ROW]), "price": [-1]}}, "inputs.price[0]: below the minimum 0, got -1"),
        ({**GOOD, "params": {"temperature": 1}}, "params.temperature: unknown field; send an object of output"),
        ({**GOOD, "params": {"output": "lable"}}, "params.output: expected one of score, label, all, got 'lable'"),
        (
            {"dataframe_split": {"columns": NAMES}},
            "dataframe_split.data: missing; send an object of columns, data, index",
        ),
        ({"dataframe_records": []}, "holds 0 rows"),
    ],
)
def test_what_is_wrong_is_named_in_mlflows_places(site: Site, body: Any, told: str) -> None:
    status, answer = site.post(PATH, body)
    assert (status, told in answer["message"]) == (400, True), answer


@pytest.mark.parametrize("content_type", ["text/plain", "application/json; charset=latin-1", "application/json; a=b"])
def test_other_types_are_refused_as_mlflow_refuses_them(site: Site, content_type: str) -> None:
    assert site.post(PATH, GOOD, content_type)[0] == by_mlflow(site, GOOD, content_type)[0] == 415


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no rows"),
        ("1,2", "holds 2"),
        ('1,"x', ""),
        ("id,price\n1,2", "missing"),
        (as_csv([{**ROW, "price": "x"}]), "price"),
    ],
)
def test_bad_csv_is_the_clients_mistake(site: Site, text: str, told: str) -> None:
    status, answer = site.post(PATH, text, "text/csv")
    assert (status, told in answer["message"]) == (400, True), answer
