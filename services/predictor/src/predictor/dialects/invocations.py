"""`/invocations`, as MLflow's scoring server and a container for SageMaker serve it.

JSON is MLflow's: `{"predictions": [...]}` for exactly one of `dataframe_split`, `dataframe_records`, `instances` and
`inputs`. CSV and JSON lines are what both send; SageMaker's CSV has no header. `Accept` chooses the form of the answer.
"""

import csv
import io
from typing import Any

import msgspec
from flask import Blueprint, Response, request
from werkzeug.exceptions import UnsupportedMediaType

from esteira.exceptions import BadInput, Problem
from esteira.release import Release
from esteira.web import json_response
from predictor.dialects.answering import (
    Output,
    Parameters,
    answer_errors,
    check_output,
    choose_outputs,
    default_serving,
    name_version,
    predict_rows,
    read_plain_body,
    read_rows,
)
from predictor.dialects.options import DialectOptions
from predictor.dialects.rows import Rows, read_columns, read_records, read_table
from predictor.dialects.texts import read_csv, read_json_lines
from predictor.inference import Answer
from predictor.prediction_log import PredictionLog
from predictor.serving import Servings

MLFLOW_VERSION = "3.17.2"
"""The MLflow whose scoring protocol this is."""
JSON, CSV, LINES = "application/json", "text/csv", "application/jsonlines"
_CODES = {404: "RESOURCE_DOES_NOT_EXIST", 500: "INTERNAL_ERROR", 503: "TEMPORARILY_UNAVAILABLE"}
_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A frame as pandas' orient `split` writes it; the index is not used."""

    columns: list[str]
    data: list[Any]
    index: list[Any] = []


class Invocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON of a request."""

    dataframe_split: Split | msgspec.UnsetType = msgspec.UNSET
    dataframe_records: list[Any] | msgspec.UnsetType = msgspec.UNSET
    instances: list[Any] | msgspec.UnsetType = msgspec.UNSET
    inputs: list[Any] | dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    params: Parameters | None = None


def make_invocations(servings: Servings, log: PredictionLog, options: DialectOptions) -> Blueprint:
    """What MLflow's and SageMaker's clients call."""
    blueprint = Blueprint("invocations", __name__)

    @blueprint.post("/invocations")
    def post_invocations() -> Response:
        kind = _content_type()
        body = read_plain_body(request)
        serving = default_serving(servings, options.default_pipeline)
        rows, output = _read(serving.runtime.release, kind, body)
        answer = predict_rows(serving, log, rows)
        return name_version(_render(choose_outputs(answer, output)), answer)

    @blueprint.get("/ping", endpoint="ping")
    @blueprint.get("/health", endpoint="health")
    def get_ping() -> Response:
        servings.require_ready()
        return Response("\n", mimetype=JSON)

    @blueprint.get("/version")
    def get_version() -> Response:
        return Response(MLFLOW_VERSION, mimetype=JSON)

    answer_errors(blueprint, _render_error)
    return blueprint


def _content_type() -> str:
    """The type of the body, which may say that its charset is UTF-8, and nothing else."""
    parameters = {name: value.lower() for name, value in request.mimetype_params.items()}
    if request.mimetype not in (JSON, CSV, LINES) or parameters.pop("charset", "utf-8") != "utf-8" or parameters:
        told = request.content_type or "none"
        raise UnsupportedMediaType(f"send Content-Type {JSON}, {CSV} or {LINES}, in UTF-8; got {told[:100]}")
    return request.mimetype


def _read(release: Release, kind: str, body: bytes) -> tuple[Rows, Output]:
    if kind == CSV:
        return read_csv(release, body), "score"
    if kind == LINES:
        return read_json_lines(release, body), "score"
    invocation, rows = read_rows(release, body, Invocation, lambda found: _read_invocation(release, found))
    output = (invocation.params or Parameters()).output
    return rows, check_output(release, output, "params.output")


def _read_invocation(release: Release, invocation: Invocation) -> Rows:
    given = {name: value for name in _FORMS if (value := getattr(invocation, name)) is not msgspec.UNSET}
    if len(given) != 1:
        found = ", ".join(given) or "none"
        raise BadInput([Problem("", f"send exactly one of {', '.join(_FORMS)}; got {found}")])
    ((name, value),) = given.items()
    if isinstance(value, Split):
        places = [f"dataframe_split.columns[{at}]" for at in range(len(value.columns))]
        return read_table(release, value.columns, value.data, "dataframe_split.data", places)
    if isinstance(value, dict):
        return _read_inputs(release, value)
    return read_records(release, value, name)


def _read_inputs(release: Release, inputs: dict[str, Any]) -> Rows:
    """Columns; or one row, where no value is an array."""
    if inputs and not any(isinstance(value, list) for value in inputs.values()):
        return read_records(release, [inputs], "inputs", lambda _, name: f"inputs.{name}" if name else "inputs")
    return read_columns(release, inputs, "inputs")


def _render(outputs: list[Any]) -> Response:
    kind = request.accept_mimetypes.best_match([JSON, CSV, LINES], default=JSON)
    if kind == CSV:
        return Response(_write_csv(outputs), mimetype=CSV)
    if kind == LINES:
        return Response(b"".join(msgspec.json.encode(output) + b"\n" for output in outputs), mimetype=LINES)
    return json_response({"predictions": outputs})


def _write_csv(outputs: list[Any]) -> str:
    """One line for each prediction, without a header; booleans and numbers as JSON writes them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for output in outputs:
        values = msgspec.structs.astuple(output) if isinstance(output, Answer) else (output,)
        writer.writerow([value if isinstance(value, str) else _field(value) for value in values])
    return text.getvalue()


def _field(value: float | bool | None) -> str:
    return "" if value is None else msgspec.json.encode(value).decode()


def _render_error(status: int, message: str) -> dict[str, str]:
    return {"error_code": _CODES.get(status, "BAD_REQUEST"), "message": message}
