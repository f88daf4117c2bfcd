"""Granian, which answers predictions: its workers are forked from a process that has loaded what they share.

They are drained through a gate when they are told to end; see docs/adr/0008-granian-serves-predictions.md.
"""

import fcntl
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predictor.listening import ACCEPT_SECONDS, begin_no_more

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from flask import Flask

HEADER_SECONDS = 30
"""For the header of a request to come, counted from the answer before it: so long an idle connection stays, too."""
_GATE = "PREDICTOR_GATE"
"""Names the file whose lock keeps workers listening."""
_FILES = Path("/proc/self/fd")
DRAIN_SECONDS = 0.5
"""Between being told to end and the end of connections that are idle."""
POLL_SECONDS = 0.02
"""Between looks whether a worker that starts listens."""
GRACE_SECONDS = 8
"""For what is in flight when the server is told to end; Cloud Run kills after ten."""


def serve(environ: Mapping[str, str]) -> None:
    """Serves until it is told to end."""
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.server.mp import MPServer

    from predictor.main import prepare

    class DrainingServer(MPServer):
        """Granian ends connections that have no request under way, also where one is on its way; so its workers are
        told a moment before to take no more, and to send away those that they have."""

        def shutdown(self, exit_code: int = 0) -> None:
            """Opens the gate that each worker waits at, lets those speak that were taken, and ends."""
            fcntl.flock(gate, fcntl.LOCK_UN)
            time.sleep(DRAIN_SECONDS)
            super().shutdown(exit_code)  # type: ignore[no-untyped-call]

    with tempfile.NamedTemporaryFile(prefix="esteira-gate-") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        os.environ[_GATE] = gate.name  # workers have this process's environment
        multiprocessing.set_start_method("fork")  # another one is the default from Python 3.14 on
        prepare()
        DrainingServer(
            "predictor.granian_server:create",
            factory=True,
            interface=Interfaces.WSGI,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=HEADER_SECONDS * 1000),
            websockets=False,
            address=environ.get("HOST") or "0.0.0.0",  # noqa: S104  Cloud Run reaches a container from outside
            port=int(environ.get("PORT") or 8080),
            workers=int(environ.get("WEB_CONCURRENCY") or 1),
            blocking_threads=int(environ["THREADS"]),
            respawn_failed_workers=True,
            workers_kill_timeout=GRACE_SECONDS,
            log_dictconfig=_logging(environ.get("LOG_LEVEL") or "info"),
        ).serve()


def create() -> "Flask":
    """Makes the app of one of granian's workers."""
    from predictor.main import create as create_app

    gate, parent = os.environ[_GATE], os.getppid()
    for name in _open_files():
        if str((_FILES / str(name)).readlink()) == gate:
            os.close(name)  # came with the fork, and would hold the gate when the first process was killed
    app = create_app()
    threading.Thread(target=_wait_at_gate, args=(gate, parent, app), name="gate", daemon=True).start()
    return app


def _wait_at_gate(gate: str, parent: int, app: "Flask") -> None:
    """Ends with the first process: takes no more connections when that says so, sends those away that ask on one that
    it has, and takes nothing more when that process is gone."""
    listening = _await_listening()  # later, under load, to look for it would take longer than the drain
    with open(gate, "rb") as file:  # noqa: PTH123
        fcntl.flock(file, fcntl.LOCK_SH)
    _stop_listening(listening)
    time.sleep(ACCEPT_SECONDS)  # until the other workers have, too: who is sent away now is not to come to them
    app.wsgi_app = _send_away(app.wsgi_app)  # type: ignore[assignment, method-assign]
    time.sleep(DRAIN_SECONDS)  # a process that is killed loses its locks before it loses its children
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _await_listening() -> list[int]:
    while not _listening():
        time.sleep(POLL_SECONDS)
    time.sleep(POLL_SECONDS)  # the server may be about to duplicate what was found
    return _listening()


def _listening() -> list[int]:
    return [name for name in _open_files() if _is_listening(name)]


def _send_away(app: "WSGIApplication") -> "WSGIApplication":
    """Closes each connection after its answer. PEP 3333 leaves that to servers, and this one has no other way."""

    def answer(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [*headers, ("Connection", "close")], *more)

        return app(environ, start)

    return answer


def _open_files() -> list[int]:
    return [int(file.name) for file in _FILES.iterdir() if file.is_symlink()]


def _stop_listening(listening: list[int]) -> None:
    """Takes the listening sockets away, once no connection waits in them: a quiet one of this process's own replaces
    each. Where the whole group was told to end, the server may have closed them."""
    for name in filter(_is_listening, listening):
        begin_no_more(name)
    time.sleep(ACCEPT_SECONDS)
    with socket.socket() as quiet:
        quiet.bind(("127.0.0.1", 0))
        quiet.listen()
        quiet.setblocking(False)
        for name in filter(_is_listening, listening):
            os.dup2(quiet.fileno(), name)


def _is_listening(name: int) -> bool:
    try:
        copy = os.dup(name)
    except OSError:  # closed meanwhile
        return False
    try:
        found = socket.socket(fileno=copy)
    except OSError:  # no socket
        os.close(copy)
        return False
    with found:
        return bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _logging(level: str) -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "esteira.logs.JsonFormatter"}},
        "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "json"}},
        "loggers": {"_granian": {"level": level.upper(), "handlers": ["stdout"], "propagate": False}},
    }
