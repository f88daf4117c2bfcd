"""The HTTP side that services share: health, errors, JSON bodies, pushed events and tasks."""

import logging
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from typing import Any, TypeVar

import msgspec
from flask import Blueprint, Flask, Request, Response, current_app, g, request
from flask.json.provider import JSONProvider
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, UnsupportedMediaType

from esteira.events import Event, decode
from esteira.exceptions import (
    BadInput,
    Busy,
    Conflict,
    EsteiraError,
    Forbidden,
    LeaseLost,
    NotEnoughData,
    NotFound,
    PermanentError,
    PipelineInvalid,
    Problem,
    ReleaseRefused,
    Saturated,
    SettingsInvalid,
    TransientError,
    Unauthenticated,
    Unavailable,
    UnknownPipeline,
)
from esteira.logs import bind_context, is_traceparent, new_trace
from esteira.pushes import Delivery, PushVerifier, parse_push
from esteira.settings import ServiceSettings

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 32 << 20  # what Cloud Run takes
RETRY_AFTER_SECONDS = "2"
T = TypeVar("T")
E = TypeVar("E", bound=Event)

STATUS: Mapping[type[EsteiraError], int] = {
    BadInput: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    UnknownPipeline: 404,
    NotFound: 404,
    Conflict: 409,
    NotEnoughData: 409,
    ReleaseRefused: 409,
    PipelineInvalid: 500,
    SettingsInvalid: 500,
    PermanentError: 500,
    Saturated: 429,
    Busy: 503,
    LeaseLost: 503,
    Unavailable: 503,
    TransientError: 503,
    EsteiraError: 500,
}
_AT = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<key>key in )?(?P<path>.*)`)?", re.DOTALL)


def create_base_app(service: str, verifier: PushVerifier | None, ready: Callable[[], None] | None = None) -> Flask:
    """Makes the app that a service adds its blueprints to.

    Args:
        service: its name, in logs and in events that it says.
        verifier: checks pushes and tasks; None lets everyone in.
        ready: raises an error (`Unavailable`) while the service cannot work yet.
    """
    app = Flask(service, static_folder=None)
    app.json = _MsgspecJSON(app)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.extensions["push_verifier"] = verifier
    app.before_request(_bind_request)
    app.teardown_request(_unbind_request)
    app.register_error_handler(EsteiraError, _refuse)
    app.register_error_handler(HTTPException, _refuse_http)
    app.register_error_handler(Exception, _fail)
    app.add_url_rule("/health/live", "live", _live)
    app.add_url_rule("/health/ready", "ready", lambda: _ready(ready))
    return app


def name_build(app: Flask, settings: ServiceSettings) -> Flask:
    """Lets `/health/live` say which revision and which commit answer; gives the app back."""
    app.config["REVISION"] = settings.k_revision or None
    app.config["CODE_VERSION"] = settings.code_version or None
    return app


def json_response(value: Any, status: int = 200) -> Response:
    """Answers with what msgspec encodes: structs, dates in ISO form, NaN as null."""
    return Response(msgspec.json.encode(value, enc_hook=str), status, mimetype="application/json")


def error_response(
    status: int, code: str, message: str, problems: list[Problem] | None = None, more: int = 0
) -> Response:
    """The one form of every error; `more` counts problems that are not named, and is there where there are any."""
    told: dict[str, Any] = {"code": code, "message": message, "problems": problems or []}
    return json_response({"error": told | ({"more": more} if more else {})}, status)


def read_json(received: Request, cls: type[T] | Any = Any, limit: int = MAX_BODY_BYTES) -> Any:
    """Reads the body of a request into `cls`; anything but finite numbers and valid UTF-8 is refused.

    Raises:
        BadInput: the body is not JSON, or not of that form; says where.
        UnsupportedMediaType: the content type is another, or the body is compressed.
        RequestEntityTooLarge: the body has more than `limit` bytes.
    """
    return decode_json(read_json_bytes(received, limit), cls)


def read_json_bytes(received: Request, limit: int = MAX_BODY_BYTES) -> bytes:
    """Reads the body of a request that says to be JSON, without decoding it.

    Raises:
        UnsupportedMediaType: the content type is another, or the body is compressed.
        RequestEntityTooLarge: the body has more than `limit` bytes.
    """
    if not received.is_json or received.headers.get("Content-Encoding", "identity") != "identity":
        raise UnsupportedMediaType("send the body as Content-Type: application/json, not compressed")
    return read_body(received, limit)


def read_body(received: Request, limit: int = MAX_BODY_BYTES) -> bytes:
    """Reads the body, which may have at most `limit` bytes, with or without a Content-Length.

    Raises:
        RequestEntityTooLarge: it has more.
        BadInput: it has less than its Content-Length says: the client did not send it to the end.
    """
    received.max_content_length = limit + 1  # a body without a length is cut off there, not refused
    if (received.content_length or 0) > limit or len(body := received.get_data(cache=False)) > limit:
        raise RequestEntityTooLarge(f"the body has more than {limit} bytes")
    if len(body) < (received.content_length or 0):
        told = f"the body ends after {len(body)} of {received.content_length} bytes; send it again"
        raise BadInput([Problem("", told)])
    return body


def decode_json(body: bytes, cls: type[T] | Any = Any) -> Any:
    """Decodes JSON into `cls`.

    Raises:
        BadInput: the body is not JSON, or not of that form; says where.
    """
    try:
        return msgspec.json.decode(body, type=cls)
    except msgspec.ValidationError as error:
        raise BadInput([_problem(str(error))]) from error
    except msgspec.MsgspecError as error:
        raise BadInput([Problem("", f"is not JSON: {str(error).removeprefix('JSON is malformed: ')}")]) from error
    except RecursionError as error:
        raise BadInput([Problem("", "is nested too deeply")]) from error
    except (UnicodeDecodeError, ValueError) as error:
        raise BadInput([Problem("", f"is not JSON: {error}")]) from error


def event_route(blueprint: Blueprint, event_class: type[E], handler: Callable[[E, Delivery], object]) -> None:
    """Serves `POST /events/<topic>`: verifies, decodes, calls `handler(event, delivery)`, answers 204.

    Permanent errors are logged and acknowledged, for a repeat cannot help; all others answer 503, to be sent again.
    """

    def receive() -> Response:
        verify_caller()
        try:
            _deliver(event_class, handler)
        except PermanentError as error:
            logger.error("event refused", extra=_facts(event_class, error))  # noqa: TRY400  the message says it all
        return Response(status=204)

    blueprint.add_url_rule(f"/events/{event_class.topic}", f"event-{event_class.topic}", receive, methods=["POST"])


def task_route(blueprint: Blueprint, name: str, handler: Callable[[], Mapping[str, Any]]) -> None:
    """Serves `POST /tasks/<name>` for the timer: verifies, calls `handler()`, answers 200 with its counts."""

    def run() -> Response:
        verify_caller()
        return json_response(handler())

    blueprint.add_url_rule(f"/tasks/{name}", f"task-{name}", run, methods=["POST"])


def verify_caller(others: Collection[str] = ()) -> str | None:
    """Lets the request in if its token proves the service account that pushes, or one of `others`.

    Returns:
        The e-mail address that it proves; None where no tokens are asked for.

    Raises:
        Unauthenticated: it does not.
    """
    verifier: PushVerifier | None = current_app.extensions["push_verifier"]
    if verifier is None:
        return None
    sent = request.headers
    return verifier.verify(sent.get("Authorization"), others, sent.get("X-Serverless-Authorization"))


def _deliver(event_class: type[E], handler: Callable[[E, Delivery], object]) -> None:
    delivery = parse_push(read_body(request))
    with bind_context(delivery.attributes.get("traceparent"), delivery.event_id):
        try:
            handler(_event(event_class, delivery), delivery)
        except PermanentError:
            raise
        except TransientError as error:
            logger.warning("event not handled yet", extra=_facts(event_class, error))
            raise
        except Exception as error:
            logger.exception("event failed", extra=_facts(event_class, error))
            raise Unavailable("the event could not be handled") from error


def _event(event_class: type[E], delivery: Delivery) -> E:
    try:
        return decode(event_class, delivery.data, delivery.attributes)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BadInput([Problem("data", str(error))]) from error


def _facts(event_class: type[Event], error: Exception) -> dict[str, str]:
    return {"topic": event_class.topic, "error": str(error), "error_class": type(error).__name__}


def _problem(message: str) -> Problem:
    match = _AT.fullmatch(message)
    if match is None:
        return Problem("", message)
    return Problem((match["path"] or "").lstrip("."), match["what"])


def _live() -> Response:
    build = {"revision": current_app.config.get("REVISION"), "code_version": current_app.config.get("CODE_VERSION")}
    return json_response({"status": "live", **build})


def _ready(ready: Callable[[], None] | None) -> Response:
    if ready is not None:
        ready()
    return json_response({"status": "ready"})


def _bind_request() -> None:
    given = request.headers.get("traceparent")
    g.log_context = ExitStack()
    g.log_context.enter_context(bind_context(given if is_traceparent(given) else new_trace()))


def _unbind_request(_: BaseException | None) -> None:
    context: ExitStack | None = g.pop("log_context", None)
    if context is not None:
        context.close()


def _refuse(error: EsteiraError) -> Response:
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    if status >= 500:
        logger.warning("request failed", extra={"path": request.path, "error": str(error)})
    problems, more = (error.problems, error.more) if isinstance(error, BadInput) else (None, 0)
    response = error_response(status, _code(type(error)), str(error), problems, more)
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    return response


def _refuse_http(error: HTTPException) -> Response | HTTPException:
    if error.code is None or error.code < 400 or error.response is not None:
        return error
    response = error_response(error.code, _snake(error.name), error.description or error.name)
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


def _fail(error: Exception) -> Response:
    logger.error("request failed unexpectedly", extra={"path": request.path}, exc_info=error)
    return error_response(500, "internal_error", "something went wrong; the log says what")


def _code(kind: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def _snake(name: str) -> str:
    return re.sub(r"[^a-z]+", "_", name.lower()).strip("_")


class _MsgspecJSON(JSONProvider):
    """Makes Flask itself speak as `json_response` does."""

    def dumps(self, obj: Any, **_: Any) -> str:
        return msgspec.json.encode(obj, enc_hook=str).decode()

    def loads(self, s: str | bytes, **_: Any) -> Any:
        return msgspec.json.decode(s)
