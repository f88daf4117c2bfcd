"""The trainer over HTTP."""

from flask import Blueprint, Response, request

from esteira.events import DatasetPrepared, RetrainRequested
from esteira.web import event_route, json_response, read_json, task_route, verify_caller
from trainer.handlers import Trainer
from trainer.promoter import Promoter, PromotionRequest, RollbackRequest

MAX_REQUEST_BYTES = 64 << 10


def make_blueprint(trainer: Trainer, operators: frozenset[str]) -> Blueprint:
    """Routes that parse, ask the trainer, and render."""
    blueprint = Blueprint("trainer", __name__)
    event_route(blueprint, DatasetPrepared, trainer.on_dataset_prepared)
    event_route(blueprint, RetrainRequested, trainer.on_retrain_requested)
    task_route(blueprint, "reconcile", trainer.reconcile)

    @blueprint.get("/pipelines/<pipeline>/runs")
    def runs(pipeline: str) -> Response:
        return json_response({"runs": trainer.runs(pipeline)})

    _add_promotions(blueprint, trainer.promoter, operators)
    return blueprint


def _add_promotions(blueprint: Blueprint, promoter: Promoter, operators: frozenset[str]) -> None:
    """What operators do to the ledger; whoever reads it needs no token."""

    @blueprint.get("/pipelines/<pipeline>/promotions")
    def promotions(pipeline: str) -> Response:
        return json_response({"promotions": promoter.history(pipeline)})

    @blueprint.post("/pipelines/<pipeline>/promotions")
    def promote(pipeline: str) -> Response:
        caller = verify_caller(operators)
        wanted = read_json(request, PromotionRequest, MAX_REQUEST_BYTES)
        return json_response(promoter.promote(pipeline, wanted, _operator(caller, operators)), 201)

    @blueprint.post("/pipelines/<pipeline>/rollback")
    def rollback(pipeline: str) -> Response:
        caller = verify_caller(operators)
        wanted = read_json(request, RollbackRequest, MAX_REQUEST_BYTES)
        return json_response(promoter.rollback(pipeline, wanted, _operator(caller, operators)), 201)


def _operator(caller: str | None, operators: frozenset[str]) -> str | None:
    """The address that the token proves; the account that pushes speaks for whom it names."""
    return caller if caller in operators else None
