"""Puts the predictor together."""

from flask import Flask, request

from esteira.publisher import Publisher
from esteira.pushes import PushVerifier
from esteira.web import create_base_app
from predictor.access import ADMIN, Access
from predictor.admin import make_admin
from predictor.fastpath import FastPath
from predictor.limits import MAX_PENDING_BYTES, Budget
from predictor.prediction_log import PredictionLog
from predictor.routes import make_docs, make_events, make_pipelines
from predictor.serving import Servings

OPEN = ("/health/", "/events/")
"""Paths that ask for no client: probes, and pushes, which prove themselves."""


def create_app(
    servings: Servings,
    log: PredictionLog,
    publisher: Publisher,
    verifier: PushVerifier | None,
    access: Access | None = None,
    budget: Budget | None = None,
) -> Flask:
    """Makes the app; it starts nothing by itself.

    Args:
        servings: what serves.
        log: takes the predictions.
        publisher: takes outcomes.
        verifier: of pushes.
        access: who may ask; everybody by default.
        budget: how much is answered at once.
    """
    access, budget = access or Access(), budget or Budget(MAX_PENDING_BYTES)
    app = create_base_app("predictor", verifier, servings.require_ready)
    app.before_request(lambda: _require_access(access))
    app.register_blueprint(make_pipelines(servings, log, publisher, budget))
    app.register_blueprint(make_admin(servings, log))
    app.register_blueprint(make_events(servings))
    app.register_blueprint(make_docs(), url_prefix="/docs")
    app.wsgi_app = FastPath(app.wsgi_app, servings, log, access, budget)  # type: ignore[method-assign]
    return app


def _require_access(access: Access) -> None:
    if request.path.startswith(OPEN):
        return
    if request.path.startswith("/admin/"):
        access.require(request.environ, ADMIN)
    else:
        access.require(request.environ, (request.view_args or {}).get("name"))
