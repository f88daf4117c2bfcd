"""What every request passes before its route: who asks, and whether there is room for its body."""

from flask import Flask, g, request

from esteira.exceptions import Saturated
from predictor.access import ADMIN, Access
from predictor.dialects.answering import find_default
from predictor.dialects.options import DialectOptions
from predictor.limits import MAX_REQUEST_BYTES, Budget
from predictor.serving import Servings

PROBES = ("/health", "/health/live", "/health/ready", "/ping", "/v2/health/live", "/v2/health/ready")
"""They ask for no client."""
DOCS = ("/docs", "/openapi.json")
"""Nor do these: a browser has no key before they are there. They name only pipelines that the caller may ask."""
PUSHES = "/events/"
"""They prove themselves: see `esteira.web.verify_caller`."""


class Entrance:
    """The door of the app.

    Args:
        servings: say which pipeline is meant where the path names none.
        access: who may ask.
        budget: how much is answered at once.
        options: say so too, and which path is Vertex AI's probe.
    """

    def __init__(self, servings: Servings, access: Access, budget: Budget, options: DialectOptions) -> None:
        self._servings = servings
        self._access = access
        self._budget = budget
        self._options = options

    def guard(self, app: Flask) -> None:
        """Sees every request of the app come and go."""
        app.before_request(self._let_in)
        app.teardown_request(self._see_off)

    def _let_in(self) -> None:
        path = request.path
        if path in (*PROBES, *DOCS, self._options.health_route) or path.startswith((PUSHES, "/docs/")):
            return
        self._access.require(request.environ, self._scope(path))
        if request.method == "POST":
            size = MAX_REQUEST_BYTES if request.content_length is None else request.content_length
            size = min(size, MAX_REQUEST_BYTES)  # more is refused unread
            if not self._budget.take(size):
                raise Saturated("this worker answers all it can at once, or waits for slow clients; try again soon")
            g.taken_bytes = size

    def _see_off(self, _: BaseException | None) -> None:
        if (taken := g.pop("taken_bytes", None)) is not None:
            self._budget.give(taken)

    def _scope(self, path: str) -> str | None:
        """The pipeline that the request is about, or the admin's routes; None for what is about no pipeline."""
        if self._access.is_open and not path.startswith("/admin/"):
            return None
        if path.startswith("/admin/"):
            return ADMIN
        named: str | None = (request.view_args or {}).get("name")
        if named is not None or request.method != "POST":
            return named
        default = find_default(self._servings, self._options.default_pipeline)
        return default.pointer.pipeline if default else None  # the route says so itself
