"""Starts the HTTP server: `python -m predictor.server`.

`SERVER` chooses it, gunicorn or granian; both serve the same app from `predictor.main`. Addresses and numbers come
from the variables that gunicorn's configuration reads too: `HOST`, `PORT`, `WEB_CONCURRENCY`, `THREADS`, `LOG_LEVEL`.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any

from esteira.exceptions import SettingsInvalid

TARGET = "predictor.main:create"
SERVERS = ("gunicorn", "granian")
"""The first is the default."""
GRACE_SECONDS = 8
"""For what is in flight when the server is told to end; Cloud Run kills after ten."""


def main(environ: Mapping[str, str]) -> None:
    """Serves until it is told to end.

    Raises:
        SettingsInvalid: there is no such server.
    """
    server = environ.get("SERVER") or SERVERS[0]
    if server not in SERVERS:
        raise SettingsInvalid(f"SERVER is {server!r}: choose {' or '.join(SERVERS)}")
    if server == "gunicorn":
        command = [sys.executable, "-m", "gunicorn", "--no-control-socket", "-c", "python:esteira.gunicorn"]
        os.execv(sys.executable, [*command, f"{TARGET}()"])  # noqa: S606  it takes the place of this process
    _serve_with_granian(environ)


def _serve_with_granian(environ: Mapping[str, str]) -> None:
    from granian.constants import HTTPModes, Interfaces
    from granian.server import Server

    threads = int(environ.get("THREADS") or 4)
    Server(
        TARGET,
        factory=True,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        address=environ.get("HOST") or "0.0.0.0",  # noqa: S104  Cloud Run reaches a container from outside
        port=int(environ.get("PORT") or 8080),
        workers=int(environ.get("WEB_CONCURRENCY") or 1),
        blocking_threads=threads,
        respawn_failed_workers=True,
        workers_kill_timeout=GRACE_SECONDS,
        log_dictconfig=_logging(environ.get("LOG_LEVEL") or "info"),
    ).serve()


def _logging(level: str) -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "esteira.logs.JsonFormatter"}},
        "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "json"}},
        "loggers": {"_granian": {"level": level.upper(), "handlers": ["stdout"], "propagate": False}},
    }


if __name__ == "__main__":
    main(os.environ)
