"""The Flask app of etl."""

from flask import Flask

from esteira.pushes import PushVerifier
from esteira.web import create_base_app
from etl.handlers import Handlers
from etl.routes import make_blueprint


def create_app(handlers: Handlers, verifier: PushVerifier | None) -> Flask:
    """Makes the app; `verifier` checks pushes and tasks, None lets everyone in."""
    app = create_base_app("etl", verifier, handlers.ready)
    app.register_blueprint(make_blueprint(handlers))
    return app
