"""A real predictor over HTTP, of small real releases, and a server that answers as it is told."""

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

from predictor.app import create_app
from predictor.prediction_log import PredictionLog
from predictor.serving import Servings
from publishers import Mailbox
from releases import BuiltRelease, build_release

Gate = Callable[[dict[str, Any]], tuple[str, dict[str, str], bytes] | None]
"""Sees a request first: status, headers and body to answer at once; None lets it through."""


def refuse(_: dict[str, Any]) -> tuple[str, dict[str, str], bytes]:
    """A gate that lets nobody in without a key."""
    return (
        "401 Unauthorized",
        {},
        b'{"error": {"code": "unauthenticated", "message": "send X-Api-Key", "problems": []}}',
    )


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serves a WSGI application on a port of its own; gives its address."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Predictor:
    """The predictor's app over releases on local disk; `gate` sees each request first."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.publisher = Mailbox()
        self.servings = Servings(cache)
        self.log = PredictionLog(self.publisher, cache / "spool")  # type: ignore[arg-type]
        self.app = create_app(self.servings, self.log, self.publisher, None)  # type: ignore[arg-type]
        self.gate: Gate = lambda _: None
        self.asked: list[dict[str, Any]] = []
        self.url = ""

    def serve(self, built: BuiltRelease, generation: int = 1) -> None:
        shutil.copytree(built.folder, self.cache / built.sha256, dirs_exist_ok=True)
        self.servings.serve("shop", built.pointer(generation), self.cache / built.sha256)
        self.servings._looked = True

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.asked.append(environ)
        if answer := self.gate(environ):
            status, headers, body = answer
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(status, list(headers.items()))
            return [body]
        return self.app.wsgi_app(environ, start_response)

    def predictions(self) -> list[dict[str, Any]]:
        """The requests for predictions that came."""
        return [environ for environ in self.asked if environ["PATH_INFO"].endswith("/predict")]


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> BuiltRelease:
    return build_release(tmp_path_factory.mktemp("classification"))


@pytest.fixture(scope="session")
def regression(tmp_path_factory: pytest.TempPathFactory) -> BuiltRelease:
    return build_release(tmp_path_factory.mktemp("regression"), "r1", "regression")


@pytest.fixture
def predictor(release: BuiltRelease, tmp_path: Path) -> Iterator[Predictor]:
    found = Predictor(tmp_path / "cache")
    found.serve(release)
    with serving(found) as found.url:
        yield found
