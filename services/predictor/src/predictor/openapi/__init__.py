"""The OpenAPI 3.1 description of the API, made from the releases in service."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from predictor.access import Access
from predictor.dialects.answering import find_default
from predictor.dialects.options import DialectOptions
from predictor.entrance import PROBES
from predictor.openapi.dialects import model_paths, service_paths
from predictor.openapi.native import common_paths, native_paths
from predictor.openapi.schemas import ERROR, KEY, TOKEN
from predictor.serving import Servings


def make_openapi(
    servings: Servings, server: str, options: DialectOptions, access: Access, environ: Mapping[str, Any]
) -> dict[str, Any]:
    """Describes each route for clients, with examples that work.

    Args:
        servings: say which releases are in service.
        server: the address that the document is asked at.
        options: the pipeline of dialects that name none, and Vertex AI's paths.
        access: says how callers prove who they are.
        environ: of the request; pipelines that its caller may not ask are left out.
    """
    may_ask = partial(access.opens, environ)
    paths: dict[str, Any] = {}
    for release in (s.runtime.shown for s in servings.all() if may_ask(s.pointer.pipeline)):
        paths |= native_paths(release) | model_paths(release)
    default = find_default(servings, options.default_pipeline)
    asked = default.runtime.shown if default and may_ask(default.pointer.pipeline) else None
    paths |= common_paths() | service_paths(asked, options)
    schemes = {**({"key": KEY} if access.takes_keys else {}), **({"token": TOKEN} if access.takes_tokens else {})}
    for path in (*PROBES, options.health_route) if schemes else ():
        if path in paths:
            paths[path]["get"]["security"] = []
    return {
        "openapi": "3.1.0",
        "info": {"title": "Esteira predictor", "version": "1"},
        "servers": [{"url": server}],
        "paths": paths,
        "security": [{name: []} for name in schemes],
        "components": {"schemas": {"Error": ERROR}, "securitySchemes": schemes},
    }
