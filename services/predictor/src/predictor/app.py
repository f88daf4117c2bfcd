"""Puts the predictor together."""

from flask import Flask

from esteira.publisher import Publisher
from esteira.pushes import PushVerifier
from esteira.web import create_base_app
from predictor.access import Access
from predictor.admin import make_admin
from predictor.deadlines import Deadlines
from predictor.dialects.invocations import make_invocations
from predictor.dialects.named_models import make_named_models
from predictor.dialects.open_inference import make_open_inference
from predictor.dialects.options import DialectOptions
from predictor.dialects.vertex import make_vertex
from predictor.entrance import Entrance
from predictor.fastpath import FastPath
from predictor.limits import MAX_PENDING_BYTES, Budget
from predictor.prediction_log import PredictionLog
from predictor.routes import make_docs, make_events, make_pipelines
from predictor.serving import Servings


def create_app(
    servings: Servings,
    log: PredictionLog,
    publisher: Publisher,
    verifier: PushVerifier | None,
    access: Access | None = None,
    budget: Budget | None = None,
    options: DialectOptions = DialectOptions(),  # noqa: B008  frozen
    deadlines: Deadlines | None = None,
) -> Flask:
    """Makes the app; it starts nothing by itself.

    Args:
        servings: what serves.
        log: takes the predictions.
        publisher: takes outcomes.
        verifier: of pushes.
        access: who may ask; everybody by default.
        budget: how much is answered at once.
        options: of the dialects.
        deadlines: how long a body may take; they hold only once they are started.
    """
    access, budget, deadlines = access or Access(), budget or Budget(MAX_PENDING_BYTES), deadlines or Deadlines()
    app = create_base_app("predictor", verifier, servings.require_ready)
    Entrance(servings, access, budget, options).guard(app)
    app.register_blueprint(make_vertex(servings, log, options))  # first: its paths are the operator's choice
    app.register_blueprint(make_pipelines(servings, log, publisher, options, access))
    app.register_blueprint(make_open_inference(servings, log))
    app.register_blueprint(make_named_models(servings, log, access))
    app.register_blueprint(make_invocations(servings, log, options))
    app.register_blueprint(make_admin(servings, log, deadlines))
    app.register_blueprint(make_events(servings))
    app.register_blueprint(make_docs(), url_prefix="/docs")
    app.wsgi_app = FastPath(  # type: ignore[method-assign]
        app.wsgi_app, servings, log, access, budget, deadlines
    )
    return app
