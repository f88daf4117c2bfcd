"""The configuration of gunicorn: `gunicorn -c python:esteira.gunicorn '<service>.main:create()'`.

`gthread` finishes what is in flight when Cloud Run says SIGTERM, 10 s before SIGKILL. Requests have their deadlines in
the code, so the arbiter kills no worker for being slow. The app is made in each worker, after the fork: clients of
gRPC and pools of connections do not survive one.
"""

import os
from typing import Any

bind = f"{os.environ.get('HOST') or '0.0.0.0'}:{os.environ.get('PORT') or '8080'}"  # noqa: S104
worker_class = "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY") or 1)
threads = int(os.environ.get("THREADS") or 4)
preload_app = False
control_socket_disable = True
timeout = 0
graceful_timeout = 8
keepalive = 75
accesslog = None  # Cloud Run logs requests; with a logging configuration only the level keeps them out
loglevel = os.environ.get("LOG_LEVEL") or "info"
logconfig_dict: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "esteira.logs.JsonFormatter"}},
    "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "json"}},
    "root": {"level": "INFO", "handlers": ["stdout"]},
    "loggers": {
        "gunicorn.error": {"level": loglevel.upper(), "handlers": ["stdout"], "propagate": False},
        "gunicorn.access": {"level": "WARNING", "handlers": ["stdout"], "propagate": False},
    },
}
