"""Answers predictions before Flask is asked: the same code without the framework's share of the time.

WSGI middleware around the app. What is ordinary, a JSON body with a length to the route of predictions, goes at once to
`straight`, or to `inference.predict`; all else, and whatever fails on the way, is the app's, which reads the request
from its beginning and explains. `X-Request-Id` is put on every answer, also on the app's.
"""

import io
import re
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

import msgspec
from werkzeug.exceptions import RequestTimeout

from esteira.logs import bind_context, is_traceparent, new_trace
from predictor import straight
from predictor.access import Access
from predictor.deadlines import Deadlines, Environ
from predictor.inference import JsonQuestion, predict
from predictor.limits import MAX_REQUEST_BYTES, Budget
from predictor.prediction_log import PredictionLog
from predictor.randomness import draw
from predictor.serving import Serving, Servings

_BEGIN, _END = "/pipelines/", "/predict"
_JSON = ("application/json", "application/json; charset=utf-8", "application/json;charset=utf-8")
_LENGTH_DIGITS = 19
"""Of a `Content-Length`, at most: `int` refuses thousands of digits."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:/+=-]{1,128}")
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


class FastPath:
    """The app, and the short way to its busiest route.

    Args:
        app: answers everything.
        servings: what serves.
        log: takes the predictions.
        access: who may ask; whom it does not let in the app refuses.
        budget: how much is answered at once.
        deadlines: how long a body may take, of any request.
    """

    def __init__(
        self,
        app: Application,
        servings: Servings,
        log: PredictionLog,
        access: Access,
        budget: Budget,
        deadlines: Deadlines,
    ) -> None:
        self._app = app
        self._access = access
        self._budget = budget
        self._deadlines = deadlines
        self._servings = servings
        self._log = log
        self._encode = msgspec.json.Encoder().encode

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request."""
        given = environ.get("HTTP_X_REQUEST_ID")
        request_id = given if given and _REQUEST_ID.fullmatch(given) else draw(16).hex()
        environ["HTTP_X_REQUEST_ID"] = request_id
        path, app = environ["PATH_INFO"], self._app
        if path.endswith(_END) and environ["REQUEST_METHOD"] == "POST" and path.startswith(_BEGIN):
            try:
                found = self._answer(environ, path[len(_BEGIN) : -len(_END)])
            except RequestTimeout as error:
                found, app = None, error.get_response()
            if found is not None:
                body, version = found
                headers = [
                    ("Content-Type", "application/json"),
                    ("Content-Length", str(len(body))),
                    ("X-Model-Version", version),
                    ("X-Request-Id", request_id),
                ]
                start_response("200 OK", headers)
                return [body]

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [*headers, ("X-Request-Id", request_id)], *more)

        self._deadlines.guard(environ)
        return app(environ, start)

    def _answer(self, environ: Environ, pipeline: str) -> tuple[bytes, str] | None:
        """The body of the answer and the version that gave it; None leaves the request to the app.

        Raises:
            RequestTimeout: the body did not come in time.
        """
        serving = self._servings.find(pipeline)
        if serving is None or serving.is_strict or not _is_ordinary(environ):
            return None
        length = int(environ["CONTENT_LENGTH"])
        if not self._access.opens(environ, pipeline) or not self._budget.take(length):
            return None
        data = b""
        try:
            data = self._deadlines.read(environ["wsgi.input"], length, environ, monotonic())
            if len(data) < length:  # the app says so
                environ["wsgi.input"] = io.BytesIO(data)
                return None
            if serving.challenger is None and (body := straight.answer(serving.runtime, self._log, data)) is not None:
                return body, serving.pointer.version
            answer = self._predict(serving, data, environ.get("HTTP_TRACEPARENT"))
            return self._encode(answer), answer.model_version
        except RequestTimeout:  # its body is gone: the app could not read it again
            raise
        except Exception:  # nothing was answered and nothing logged: the app meets the same, and says it well
            environ["wsgi.input"] = io.BytesIO(data)
            return None
        finally:
            self._budget.give(length)

    def _predict(self, serving: Serving, data: bytes, trace: str | None) -> Any:
        if serving.challenger is None:
            return predict(serving, self._log, JsonQuestion(data))
        with bind_context(trace if is_traceparent(trace) else new_trace()):  # a challenger's failure is logged
            return predict(serving, self._log, JsonQuestion(data))


def _is_ordinary(environ: Environ) -> bool:
    length = environ.get("CONTENT_LENGTH") or ""
    return (
        length.isascii()
        and length.isdigit()
        and len(length) <= _LENGTH_DIGITS
        and int(length) <= MAX_REQUEST_BYTES
        and environ.get("CONTENT_TYPE") in _JSON
        and "HTTP_CONTENT_ENCODING" not in environ
        and "HTTP_TRANSFER_ENCODING" not in environ
    )
