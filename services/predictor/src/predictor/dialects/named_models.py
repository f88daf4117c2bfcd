"""`/v1/models`: the REST form of TensorFlow Serving, which is version 1 of KServe's."""

from typing import Any

import msgspec
from flask import Blueprint, Response, request
from werkzeug.exceptions import UnsupportedMediaType

from esteira.exceptions import BadInput, Problem
from esteira.release import Release
from esteira.web import json_response
from predictor.access import Access
from predictor.dialects.answering import (
    answer_errors,
    choose_outputs,
    name_version,
    predict_rows,
    read_plain_body,
    read_rows,
    render_error,
)
from predictor.dialects.rows import Rows, read_columns, read_records
from predictor.prediction_log import PredictionLog
from predictor.serving import Serving, Servings

SIGNATURE = "serving_default"
_TYPES = ("application/json", "application/x-www-form-urlencoded", "")
"""The second is what `curl -d` says of JSON, and both servers take."""


class ModelRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows, or columns; exactly one of the two."""

    instances: list[Any] | msgspec.UnsetType = msgspec.UNSET
    inputs: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    signature_name: str = SIGNATURE


def make_named_models(servings: Servings, log: PredictionLog, access: Access) -> Blueprint:
    """What clients of KServe v1 and TensorFlow Serving call."""
    blueprint = Blueprint("named_models", __name__)

    @blueprint.get("/v1/models")
    def get_models() -> Response:
        names = [serving.pointer.pipeline for serving in servings.all()]
        return json_response({"models": [name for name in names if access.opens(request.environ, name)]})

    @blueprint.get("/v1/models/<name>")
    def get_model(name: str) -> Response:
        version = servings.get(name).pointer.version
        status = {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return json_response({"name": name, "ready": True, "model_version_status": [status]})

    @blueprint.post("/v1/models/<name>:predict")
    def post_predict(name: str) -> Response:
        if request.mimetype not in _TYPES:
            raise UnsupportedMediaType("send the body as Content-Type: application/json")
        return _predict(servings.get(name), log, read_plain_body(request))

    answer_errors(blueprint, render_error)
    return blueprint


def _predict(serving: Serving, log: PredictionLog, body: bytes) -> Response:
    """Rows are answered by `predictions`, columns by `outputs`."""
    release = serving.runtime.release
    asked, rows = read_rows(release, body, ModelRequest, lambda found: _read(release, found))
    answer = predict_rows(serving, log, rows)
    key = "outputs" if isinstance(asked.inputs, dict) else "predictions"
    return name_version(json_response({key: choose_outputs(answer, "score")}), answer)


def _read(release: Release, asked: ModelRequest) -> Rows:
    if asked.signature_name not in ("", SIGNATURE):
        raise BadInput([Problem("signature_name", f"there is no other than {SIGNATURE!r}")])
    if (asked.instances is msgspec.UNSET) == (asked.inputs is msgspec.UNSET):
        raise BadInput([Problem("", "send either `instances` (rows) or `inputs` (columns)")])
    if isinstance(asked.inputs, dict):
        return read_columns(release, asked.inputs, "inputs")
    return read_records(release, asked.instances, "instances")
