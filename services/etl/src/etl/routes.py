"""The HTTP routes of etl."""

from flask import Blueprint, Response

from esteira.events import RawDataUploaded
from esteira.web import event_route, json_response, task_route
from etl.handlers import Handlers


def make_blueprint(handlers: Handlers) -> Blueprint:
    """The routes, answered by `handlers`."""
    blueprint = Blueprint("etl", __name__)
    event_route(blueprint, RawDataUploaded, handlers.receive)
    task_route(blueprint, "reconcile", handlers.reconcile)

    @blueprint.get("/pipelines/<pipeline>/ingestions")
    def list_ingestions(pipeline: str) -> Response:
        return json_response({"ingestions": handlers.ingestions(pipeline)})

    return blueprint
