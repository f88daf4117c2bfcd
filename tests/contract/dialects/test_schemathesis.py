"""What /openapi.json says of requests and answers, tried by schemathesis: bodies that fit it, and bodies that do not.

No answer is 5xx, and each is one that the document says, in its form. `SCHEMATHESIS_EXAMPLES` says how many bodies of
each kind every route gets, 25 by default.
"""

import json
import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from contract.dialects.site import Site

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "25"))
ROUTES = [
    *("/pipelines/shop/predict", "/pipelines/shop/feedback", "/invocations", "/v1/models/shop:predict"),
    *("/v2/models/shop/infer", "/v2/models/shop/versions/{version}/infer", "/vertex/predict"),
]
VERSION = {"version": "v1"}


@pytest.fixture(scope="session")
def described(site: Site) -> Any:
    return schemathesis.openapi.from_wsgi("/openapi.json", site.app)


def test_every_route_that_takes_a_body_is_tried(described: Any) -> None:
    found = [operation.ok() for operation in described.get_all_operations()]
    assert sorted(operation.path for operation in found if operation.method.upper() == "POST") == sorted(ROUTES)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=str)
@pytest.mark.parametrize("path", ROUTES)
def test_every_answer_is_one_that_the_document_says(described: Any, path: str, mode: GenerationMode) -> None:
    @given(described[path]["POST"].as_strategy(mode, path_parameters=VERSION if "{version}" in path else None))
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink])
    def ask(case: Any) -> None:
        answer = case.call()
        if "json" in answer.headers.get("content-type", [""])[0]:
            json.loads(answer.content)
        case.validate_response(answer, checks=CHECKS)

    ask()
