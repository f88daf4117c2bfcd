"""The OpenAPI 3.1 description of the API, made from the releases in service."""

from collections.abc import Callable
from typing import Any

from predictor.dialects.answering import find_default
from predictor.dialects.options import DialectOptions
from predictor.openapi.dialects import model_paths, service_paths
from predictor.openapi.native import common_paths, native_paths
from predictor.openapi.schemas import ERROR
from predictor.serving import Servings


def make_openapi(
    servings: Servings, server: str, options: DialectOptions, may_ask: Callable[[str], bool]
) -> dict[str, Any]:
    """Describes each route for clients, with examples that work.

    Args:
        servings: say which releases are in service.
        server: the address that the document is asked at.
        options: the pipeline of dialects that name none, and Vertex AI's paths.
        may_ask: whether the caller may ask a pipeline; others are left out.
    """
    paths: dict[str, Any] = {}
    for release in (s.runtime.shown for s in servings.all() if may_ask(s.pointer.pipeline)):
        paths |= native_paths(release) | model_paths(release)
    default = find_default(servings, options.default_pipeline)
    asked = default.runtime.shown if default and may_ask(default.pointer.pipeline) else None
    paths |= common_paths() | service_paths(asked, options)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Esteira predictor", "version": "1"},
        "servers": [{"url": server}],
        "paths": paths,
        "components": {"schemas": {"Error": ERROR}},
    }
