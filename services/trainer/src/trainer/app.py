"""Puts the trainer's routes on the app that services share."""

from flask import Flask

from esteira.pushes import PushVerifier
from esteira.web import create_base_app
from trainer.handlers import Trainer
from trainer.routes import make_blueprint


def create_app(trainer: Trainer, verifier: PushVerifier | None, operators: frozenset[str] = frozenset()) -> Flask:
    """Makes the app.

    Args:
        trainer: answers.
        verifier: checks pushes, tasks and operators; None lets everyone in.
        operators: who may promote and roll back, besides the account that pushes.
    """
    app = create_base_app("trainer", verifier, trainer.check_ready)
    app.register_blueprint(make_blueprint(trainer, operators))
    return app
