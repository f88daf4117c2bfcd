"""The trainer over HTTP."""

from flask import Blueprint, Response

from esteira.events import DatasetPrepared, RetrainRequested
from esteira.web import event_route, json_response, task_route
from trainer.handlers import Trainer


def make_blueprint(trainer: Trainer) -> Blueprint:
    """Routes that parse, ask the trainer, and render."""
    blueprint = Blueprint("trainer", __name__)
    event_route(blueprint, DatasetPrepared, trainer.on_dataset_prepared)
    event_route(blueprint, RetrainRequested, trainer.on_retrain_requested)
    task_route(blueprint, "reconcile", trainer.reconcile)

    @blueprint.get("/pipelines/<pipeline>/runs")
    def runs(pipeline: str) -> Response:
        return json_response({"runs": trainer.runs(pipeline)})

    @blueprint.get("/pipelines/<pipeline>/promotions")
    def promotions(pipeline: str) -> Response:
        return json_response({"promotions": trainer.promotions(pipeline)})

    return blueprint
