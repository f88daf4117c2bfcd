"""Log lines as Cloud Logging reads them: one JSON object a line on stdout.

https://cloud.google.com/logging/docs/structured-logging; a stack in `stack_trace` reaches Error Reporting.
"""

import json
import logging
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import msgspec

SEVERITIES = {
    logging.DEBUG: "DEBUG",
    logging.INFO: "INFO",
    logging.WARNING: "WARNING",
    logging.ERROR: "ERROR",
    logging.CRITICAL: "CRITICAL",
}
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_QUIET = ("werkzeug", "alembic", "urllib3", "google")
_NOTHING: Mapping[str, str] = {}
_context: ContextVar[Mapping[str, str]] = ContextVar("esteira_log_context", default=_NOTHING)


class JsonFormatter(logging.Formatter):
    """Renders a record with its `extra` and the bound context; never fails, whatever `extra` holds."""

    def __init__(self, service: str = "", project: str | None = None) -> None:
        super().__init__()
        self._service = service
        self._project = project

    def format(self, record: logging.LogRecord) -> str:
        line = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        line |= self._facts(record)
        return _as_json(line)

    def _facts(self, record: logging.LogRecord) -> dict[str, Any]:
        context = dict(_context.get())
        facts: dict[str, Any] = {
            "severity": SEVERITIES.get(record.levelno, "DEFAULT"),
            "message": _message(record),
            "logger": record.name,
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
        }
        if self._service:
            facts |= {"service": self._service, "serviceContext": {"service": self._service}}
        facts |= self._trace_fields(context.pop("trace", None)) | context
        if record.exc_info:
            facts["stack_trace"] = self.formatException(record.exc_info)
        return facts

    def _trace_fields(self, traceparent: str | None) -> dict[str, str]:
        match = _TRACEPARENT.fullmatch(traceparent or "")
        if match is None:
            return {}
        trace = f"projects/{self._project}/traces/{match['trace']}" if self._project else match["trace"]
        return {"logging.googleapis.com/trace": trace, "logging.googleapis.com/spanId": match["span"]}


def configure_logging(service: str, level: str = "info", project: str | None = None) -> None:
    """Sends every logger's lines to stdout as JSON; the last call wins, so that workers may repeat it.

    Args:
        service: said in each line.
        level: `debug`, `info`, `warning` or `error`.
        project: the Google Cloud project, without which a trace is a bare id.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(service, project))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in ("gunicorn.error", "gunicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


@contextmanager
def bind_context(trace: str | None = None, event_id: str | None = None, **facts: str) -> Iterator[None]:
    """Adds facts to every line logged inside; None leaves the outer value.

    Args:
        trace: a W3C `traceparent`; one that is malformed is passed over.
        event_id: the `ce-id` of the event that is handled.
        facts: further ids, such as a pipeline's name.
    """
    given = {"trace": trace if is_traceparent(trace) else None, "event_id": event_id, **facts}
    outer = _context.get()
    _context.set({**outer, **{name: value for name, value in given.items() if value is not None}})
    try:
        yield
    finally:
        _context.set(outer)


def current_trace() -> str | None:
    """The W3C `traceparent` that is bound, to be passed on with messages and requests."""
    return _context.get().get("trace")


def new_trace() -> str:
    """A `traceparent` for work that nobody traced so far."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def is_traceparent(text: str | None) -> bool:
    """Whether `text` has the form of https://www.w3.org/TR/trace-context/#traceparent-header, and no null id."""
    match = _TRACEPARENT.fullmatch(text or "")
    return match is not None and match["trace"].strip("0") != "" and match["span"].strip("0") != ""


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # arguments that do not fit the message: a line is better than none
        return f"{record.msg} {record.args}"


def _as_json(line: dict[str, Any]) -> str:
    try:
        return msgspec.json.encode(line, enc_hook=str).decode()
    except Exception:
        return json.dumps({name: value if isinstance(value, str) else repr(value) for name, value in line.items()})
