"""Puts the predictor together."""

from flask import Flask

from esteira.publisher import Publisher
from esteira.pushes import PushVerifier
from esteira.web import create_base_app
from predictor.fastpath import FastPath
from predictor.prediction_log import PredictionLog
from predictor.routes import make_docs, make_events, make_pipelines
from predictor.serving import Servings


def create_app(servings: Servings, log: PredictionLog, publisher: Publisher, verifier: PushVerifier | None) -> Flask:
    """Makes the app; it starts nothing by itself."""
    app = create_base_app("predictor", verifier, servings.require_ready)
    app.register_blueprint(make_pipelines(servings, log, publisher))
    app.register_blueprint(make_events(servings))
    app.register_blueprint(make_docs(), url_prefix="/docs")
    app.wsgi_app = FastPath(app.wsgi_app, servings, log)  # type: ignore[method-assign]
    return app
