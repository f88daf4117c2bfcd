"""The OpenAPI 3.1 description of the API, made from the releases in service."""

from collections.abc import Sequence
from typing import Any

from esteira.release import Release
from predictor.dialects.answering import DialectOptions
from predictor.openapi.dialects import model_paths, service_paths
from predictor.openapi.native import common_paths, native_paths
from predictor.openapi.schemas import ERROR


def make_openapi(releases: Sequence[Release], server: str, options: DialectOptions) -> dict[str, Any]:
    """Describes each route for clients, with examples that work.

    Args:
        releases: in service.
        server: the address that the document is asked at.
        options: the pipeline of dialects that name none, and Vertex AI's paths.
    """
    paths: dict[str, Any] = {}
    for release in releases:
        paths |= native_paths(release) | model_paths(release)
    paths |= common_paths() | service_paths(_default(releases, options.default_pipeline), options)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Esteira predictor", "version": "1"},
        "servers": [{"url": server}],
        "paths": paths,
        "components": {"schemas": {"Error": ERROR}},
    }


def _default(releases: Sequence[Release], name: str | None) -> Release | None:
    """The release that serves where no pipeline is named, as `default_serving` finds it."""
    if name is None:
        return releases[0] if len(releases) == 1 else None
    return next((release for release in releases if release.pipeline == name), None)
