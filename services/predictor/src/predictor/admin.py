"""Routes for those who run the service, apart from those for clients."""

from flask import Blueprint, Response

from esteira.web import json_response
from predictor.deadlines import Deadlines
from predictor.handlers import count_shadows, list_pipelines
from predictor.prediction_log import PredictionLog
from predictor.serving import Servings


def make_admin(servings: Servings, log: PredictionLog, deadlines: Deadlines) -> Blueprint:
    """What this worker does, and what it may be told."""
    blueprint = Blueprint("admin", __name__, url_prefix="/admin")

    @blueprint.get("/state")
    def get_state() -> Response:
        told = {
            "pipelines": list_pipelines(servings),
            "log": log.counts(),
            "shadows": count_shadows(servings),
            "late_bodies": deadlines.missed,
        }
        return json_response(told)

    @blueprint.post("/refresh")
    def post_refresh() -> Response:
        """Looks at the pointers before it answers."""
        servings.refresh()
        return json_response({"pipelines": list_pipelines(servings)})

    return blueprint
