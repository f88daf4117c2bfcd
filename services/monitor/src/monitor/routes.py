"""The monitor's HTTP interface."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flask import Blueprint, Response, request
from sqlalchemy import Engine

from esteira.events import ModelApproved, ModelPromoted, OutcomesObserved, PredictionsServed
from esteira.exceptions import BadInput, Problem
from esteira.pipeline import LoadedPipeline
from esteira.web import event_route, json_response, task_route
from monitor import views
from monitor.canaries import Canaries
from monitor.dashboard import render
from monitor.handlers import OutcomeObserver, PredictionStore, Reconciler, model_approved, model_promoted
from monitor.windows import as_utc

MAX_WINDOWS = 500
SAFETY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def make_blueprint(
    engine: Engine,
    pipelines: Mapping[str, LoadedPipeline],
    predictions: PredictionStore,
    outcomes: OutcomeObserver,
    reconciler: Reconciler,
    canaries: Canaries,
) -> Blueprint:
    """Routes of events, of the timer, and of what people look at."""
    blueprint = Blueprint("monitor", __name__)
    event_route(blueprint, PredictionsServed, predictions.receive)
    event_route(blueprint, OutcomesObserved, outcomes.receive)
    event_route(blueprint, ModelApproved, model_approved)
    event_route(blueprint, ModelPromoted, model_promoted)
    task_route(blueprint, "reconcile", reconciler.run)
    _add_reports(blueprint, engine, dict(pipelines), canaries)
    return blueprint


def _add_reports(
    blueprint: Blueprint, engine: Engine, pipelines: dict[str, LoadedPipeline], canaries: Canaries
) -> None:
    def status(pipeline: str) -> Response:
        return json_response(views.status(engine, pipelines, pipeline))

    def windows(pipeline: str) -> Response:
        found = views.windows(engine, pipelines, pipeline, _start(), MAX_WINDOWS)
        return json_response({"windows": found})

    def drift(pipeline: str) -> Response:
        return json_response(views.drift(engine, pipelines, pipeline))

    def canary(pipeline: str) -> Response:
        return json_response(canaries.report(pipeline))

    def dashboard() -> Response:
        page = render(views.overview(engine, pipelines))
        return Response(page, mimetype="text/html", headers=SAFETY_HEADERS)

    rules: dict[str, Any] = {"/pipelines/<pipeline>": status, "/pipelines/<pipeline>/windows": windows}
    rules |= {"/pipelines/<pipeline>/drift": drift, "/pipelines/<pipeline>/canary": canary, "/": dashboard}
    for rule, view in rules.items():
        blueprint.add_url_rule(rule, view.__name__, view)


def _start() -> datetime | None:
    given = request.args.get("start")
    if not given:
        return None
    try:
        return as_utc(datetime.fromisoformat(given))
    except ValueError:
        problem = Problem("start", f"is {given!r}; expected a time such as 2013-01-31T18:00:00Z")
        raise BadInput([problem]) from None
