"""The predictor's HTTP surface: each route parses, calls one handler, renders."""

from functools import partial
from importlib.resources import files

from flask import Blueprint, Response, request

from esteira.events import ModelPromoted
from esteira.publisher import Publisher
from esteira.web import event_route, json_response, read_json_bytes
from predictor.access import Access
from predictor.dialects.options import DialectOptions
from predictor.feedback import give_feedback
from predictor.handlers import describe, list_pipelines
from predictor.inference import JsonQuestion, predict
from predictor.limits import MAX_REQUEST_BYTES
from predictor.openapi import make_openapi
from predictor.prediction_log import PredictionLog
from predictor.serving import Servings

DOCS = files("predictor") / "docs.html"
SWAGGER_UI = str(files("flask_swagger_ui") / "dist")


def make_pipelines(
    servings: Servings, log: PredictionLog, publisher: Publisher, options: DialectOptions, access: Access
) -> Blueprint:
    """What clients call."""
    blueprint = Blueprint("pipelines", __name__)

    @blueprint.post("/pipelines/<name>/predict")
    def post_predict(name: str) -> Response:
        serving = servings.get(name)
        answer = predict(serving, log, JsonQuestion(read_json_bytes(request, MAX_REQUEST_BYTES)))
        response = json_response(answer)
        response.headers["X-Model-Version"] = answer.model_version
        return response

    @blueprint.post("/pipelines/<name>/feedback")
    def post_feedback(name: str) -> Response:
        body = read_json_bytes(request, MAX_REQUEST_BYTES)
        return json_response({"accepted": give_feedback(servings.get(name), publisher, body)}, 202)

    @blueprint.get("/pipelines")
    def get_pipelines() -> Response:
        return json_response(list_pipelines(servings, partial(access.opens, request.environ)))

    @blueprint.get("/pipelines/<name>")
    def get_pipeline(name: str) -> Response:
        return json_response(describe(servings, log, name))

    @blueprint.get("/openapi.json")
    def get_openapi() -> Response:
        server = request.host_url.rstrip("/")
        return json_response(make_openapi(servings, server, options, access, request.environ))

    return blueprint


def make_events(servings: Servings) -> Blueprint:
    """What Pub/Sub pushes: a promotion is a hint to look at the pointer now."""
    blueprint = Blueprint("events", __name__)
    event_route(blueprint, ModelPromoted, lambda *_: servings.look_now())
    return blueprint


def make_docs() -> Blueprint:
    """Swagger UI, served from its wheel, over /openapi.json."""
    blueprint, page = Blueprint("docs", __name__, static_folder=SWAGGER_UI, static_url_path=""), DOCS.read_text()

    @blueprint.get("/")
    def get_docs() -> Response:
        return Response(page, mimetype="text/html")

    return blueprint
