"""The OpenAPI 3.1 description of the API, made from the releases in service."""

from typing import Any

from predictor.dialects.answering import find_default
from predictor.dialects.options import DialectOptions
from predictor.openapi.dialects import model_paths, service_paths
from predictor.openapi.native import common_paths, native_paths
from predictor.openapi.schemas import ERROR
from predictor.serving import Servings


def make_openapi(servings: Servings, server: str, options: DialectOptions) -> dict[str, Any]:
    """Describes each route for clients, with examples that work.

    Args:
        servings: say which releases are in service.
        server: the address that the document is asked at.
        options: the pipeline of dialects that name none, and Vertex AI's paths.
    """
    paths: dict[str, Any] = {}
    for release in (serving.runtime.release for serving in servings.all()):
        paths |= native_paths(release) | model_paths(release)
    default = find_default(servings, options.default_pipeline)
    paths |= common_paths() | service_paths(default.runtime.release if default else None, options)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Esteira predictor", "version": "1"},
        "servers": [{"url": server}],
        "paths": paths,
        "components": {"schemas": {"Error": ERROR}},
    }
