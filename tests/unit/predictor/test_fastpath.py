"""The short way to predictions answers as the app does, and leaves to the app whatever is not ordinary."""

import io
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from predictor.access import Access
from predictor.app import create_app
from predictor.deadlines import Deadlines
from predictor.fastpath import FastPath
from predictor.limits import MAX_PENDING_BYTES, MAX_REQUEST_BYTES, Budget
from predictor.prediction_log import PredictionLog
from predictor.serving import Servings
from releases import BuiltRelease, build_release, raw_rows

PATH = "/pipelines/shop/predict"


class Published:
    """Where the log would publish."""

    def publish(self, _: Any) -> None:
        """Takes it."""


class Site:
    """The predictor's app with and without its short way, over one release."""

    def __init__(self, built: BuiltRelease, cache: Path) -> None:
        shutil.copytree(built.folder, cache / built.sha256)
        self.servings = Servings(cache)
        self.servings.serve("shop", built.pointer(1), cache / built.sha256)
        self.log = PredictionLog(Published(), cache / "spool")  # type: ignore[arg-type]
        app = create_app(self.servings, self.log, Published(), None)  # type: ignore[arg-type]
        self.whole = app.wsgi_app
        self.asked: list[str] = []
        self.short = FastPath(self._refuse, self.servings, self.log, Access(), Budget(MAX_PENDING_BYTES), Deadlines())

    def _refuse(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.asked.append(environ["PATH_INFO"])
        start_response("599 The App", [])
        return []


def call(app: Any, body: bytes, path: str = PATH, **changes: Any) -> tuple[str, dict[str, str], bytes]:
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "SERVER_NAME": "here",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
        **changes,
    }
    found: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
        found[:] = [status, dict(headers)]

    data = b"".join(app({name: value for name, value in environ.items() if value is not None}, start))
    return found[0], found[1], data


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltRelease:
    return build_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def site(built: BuiltRelease, tmp_path: Path) -> Site:
    return Site(built, tmp_path / "cache")


def rows(count: int = 3) -> bytes:
    return json.dumps({"rows": raw_rows(count)}).encode()


def scores(data: bytes) -> list[float]:
    return [prediction["score"] for prediction in json.loads(data)["predictions"]]


def test_an_ordinary_request_is_answered_without_the_app(site: Site) -> None:
    status, headers, data = call(site.short, rows())
    assert (status, site.asked) == ("200 OK", [])
    assert headers["Content-Type"] == "application/json"
    assert headers["Content-Length"] == str(len(data))
    assert headers["X-Model-Version"] == "v1"
    assert scores(data) == scores(call(site.whole, rows(), CONTENT_TYPE="application/json; profile=1")[2])
    assert site.log.added == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"CONTENT_TYPE": "text/plain"},
        {"CONTENT_TYPE": None},
        {"CONTENT_LENGTH": None},
        {"CONTENT_LENGTH": "-1"},
        {"CONTENT_LENGTH": "²"},
        {"CONTENT_LENGTH": str(MAX_REQUEST_BYTES + 1)},
        {"CONTENT_LENGTH": "0" * 5000 + "9"},
        {"HTTP_CONTENT_ENCODING": "gzip"},
        {"HTTP_TRANSFER_ENCODING": "chunked"},
        {"REQUEST_METHOD": "PUT"},
        {"path": "/pipelines/other/predict"},
        {"path": "/pipelines/shop/feedback"},
        {"path": "/pipelines//predict"},
        {"path": "/predict"},
        {"path": "/pipelines/predict"},
    ],
)
def test_what_is_not_ordinary_is_the_apps_from_its_beginning(site: Site, changes: dict[str, str]) -> None:
    assert call(site.short, rows(), **changes)[0] == "599 The App"
    assert len(site.asked) == 1
    assert site.log.added == 0


@pytest.mark.parametrize("body", [b"", b"{", b'{"rows": []}', b'{"rows": [{"id": "x"}]}', b"[" * 100_000])
def test_what_fails_is_explained_by_the_app_with_the_same_body(site: Site, body: bytes) -> None:
    assert call(site.short, body)[0] == "599 The App"
    status, headers, data = call(site.whole, body)
    assert status.startswith("400")
    assert json.loads(data)["error"]["problems"]
    assert headers["X-Request-Id"]
    assert site.log.added == 0


def test_a_body_that_ends_too_early_is_refused_though_it_is_json(site: Site) -> None:
    ended = {"CONTENT_LENGTH": str(len(rows()) + 1), "wsgi.input_terminated": True}
    status, _, data = call(site.whole, rows(), **ended)
    assert (status, site.log.added) == ("400 BAD REQUEST", 0)
    assert f"ends after {len(rows())} of {len(rows()) + 1} bytes" in json.loads(data)["error"]["message"]


@pytest.mark.parametrize("path", [PATH, "/health/live", "/nowhere"])
def test_every_answer_has_the_id_of_its_request(site: Site, path: str) -> None:
    given = "trace/1:a.b=_-+"
    assert call(site.whole, rows(), path, HTTP_X_REQUEST_ID=given)[1]["X-Request-Id"] == given
    for wrong in ("", "a b", "x" * 129, "a\r\nSet-Cookie: b"):
        made = call(site.whole, rows(), path, HTTP_X_REQUEST_ID=wrong)[1]["X-Request-Id"]
        assert made != wrong
        assert len(made) == 32
