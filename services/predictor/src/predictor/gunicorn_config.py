"""The configuration of gunicorn for the predictor: Esteira's, and workers that share what was loaded before them and
are drained when they end."""

from typing import Any

from esteira.gunicorn import *  # noqa: F403

worker_class = "predictor.gunicorn_worker.DrainingWorker"


def on_starting(_: Any) -> None:
    """Loads it in the process that workers are forked from; the app is made in each of them."""
    from predictor.main import prepare

    prepare()
