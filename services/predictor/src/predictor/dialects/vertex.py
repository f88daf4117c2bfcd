"""The contract of Vertex AI for containers of one's own: paths from the environment, `instances` and `parameters`.

Vertex AI adds `deployedModelId` to the answer by itself.
"""

from typing import Any

import msgspec
from flask import Blueprint, Response, request

from esteira.web import json_response, read_json_bytes
from predictor.dialects.answering import (
    Parameters,
    answer_errors,
    check_output,
    choose_outputs,
    default_serving,
    name_version,
    predict_rows,
    read_rows,
    render_error,
)
from predictor.dialects.options import DialectOptions
from predictor.dialects.rows import read_records
from predictor.limits import MAX_REQUEST_BYTES
from predictor.prediction_log import PredictionLog
from predictor.serving import Servings


class PredictionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON of a request."""

    instances: list[Any]
    parameters: Parameters | None = None


def make_vertex(servings: Servings, log: PredictionLog, options: DialectOptions) -> Blueprint:
    """What Vertex AI calls, at the paths that it gave; none where it gave none."""
    blueprint = Blueprint("vertex", __name__)

    def predict() -> Response:
        body = read_json_bytes(request, MAX_REQUEST_BYTES)
        serving = default_serving(servings, options.default_pipeline)
        release = serving.runtime.release
        asked, rows = read_rows(
            release, body, PredictionRequest, lambda found: read_records(release, found.instances, "instances")
        )
        output = check_output(release, (asked.parameters or Parameters()).output, "parameters.output")
        answer = predict_rows(serving, log, rows)
        return name_version(json_response({"predictions": choose_outputs(answer, output)}), answer)

    def health() -> Response:
        servings.require_ready()
        return json_response({"status": "ready"})

    if options.predict_route:
        blueprint.add_url_rule(options.predict_route, "predict", predict, methods=["POST"])
    if options.health_route:
        blueprint.add_url_rule(options.health_route, "health", health)
    answer_errors(blueprint, render_error)
    return blueprint
