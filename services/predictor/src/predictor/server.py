"""The first process of the predictor: `python -m predictor.server`.

It starts the keeper before anything else, so that both load at once, and then the HTTP server that `SERVER` chooses:
granian or gunicorn, which serve the same app from `predictor.main`. Addresses and numbers come from the variables that
gunicorn's configuration reads too: `HOST`, `PORT`, `WEB_CONCURRENCY`, `THREADS`, `LOG_LEVEL`; Vertex AI's
`AIP_HTTP_PORT` comes before `PORT`.
"""

import os
import sys
import tempfile
import time
from collections.abc import Mapping

from predictor import limits, memory
from predictor.supervisor import STATE_DIR, Supervisor

SERVERS = ("granian", "gunicorn")
"""The first is the default."""
DEFAULTS = {
    "OMP_NUM_THREADS": "1",  # numpy would start threads when it is imported, and a fork has none of them
    **memory.MALLOC,
}
THREADS = {"granian": str(limits.THREADS), "gunicorn": "4"}
"""Of a worker, where `THREADS` does not say: a client that is slow to send its body holds one."""


def main(environ: Mapping[str, str]) -> int:
    """Serves until it is told to end; gives the exit status.

    Raises:
        SettingsInvalid: there is no such server.
    """
    server = environ.get("SERVER") or SERVERS[0]
    if server not in SERVERS:
        from esteira.exceptions import SettingsInvalid  # not before the keeper is started

        raise SettingsInvalid(f"SERVER is {server!r}: choose {' or '.join(SERVERS)}")
    with tempfile.TemporaryDirectory(prefix="esteira-predictor-") as state:
        os.environ.update({**DEFAULTS, **environ, STATE_DIR: state})
        os.environ["THREADS"] = environ.get("THREADS") or THREADS[server]
        if port := environ.get("AIP_HTTP_PORT"):  # before PORT, which the image sets
            os.environ["PORT"] = port
        memory.set_malloc(os.environ)
        serve = _serve_with_granian if server == "granian" else _serve_with_gunicorn
        status = Supervisor([sys.executable, "-m", "predictor.keeper"], serve).run()
    time.sleep(float(environ.get("LINGER_SECONDS") or 0))
    return status


def _serve_with_granian() -> None:
    from predictor.granian_server import serve

    serve(os.environ)


def _serve_with_gunicorn() -> None:
    command = [sys.executable, "-m", "gunicorn", "--no-control-socket", "-c", "python:predictor.gunicorn_config"]
    os.execv(sys.executable, [*command, "predictor.main:create()"])  # noqa: S606  no shell is wanted


if __name__ == "__main__":
    sys.exit(main(os.environ))
