"""The document at /openapi.json: valid, complete, and with examples that work."""

import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from contract.dialects.site import Site

NOT_FOR_CLIENTS = ("/admin/", "/events/", "/docs", "/openapi.json", "/static/")


@pytest.fixture(params=["site", "regression"])
def served(request: pytest.FixtureRequest) -> Site:
    found: Site = request.getfixturevalue(request.param)
    return found


def document(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = site.client.get("/openapi.json").get_json()
    return found


def operations(site: Site) -> list[tuple[str, str, dict[str, Any]]]:
    paths = document(site)["paths"]
    return [(path, method, item[method]) for path, item in paths.items() for method in item if method != "parameters"]


def test_it_is_openapi_31(served: Site) -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(document(served)).iter_errors()] == []


def test_it_describes_every_route_for_clients_and_nothing_else(served: Site) -> None:
    routes = {
        (re.sub(r"<name>", "shop", re.sub(r"<version>", "{version}", rule.rule)), method.lower())
        for rule in served.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.rule.startswith(NOT_FOR_CLIENTS)
    }
    assert {(path, method) for path, method, _ in operations(served)} == routes


def test_every_operation_answers_as_it_says(served: Site) -> None:
    said = document(served)
    for path, method, operation in operations(served):
        contents = operation.get("requestBody", {"content": {}})["content"]
        example = contents.get("application/json", {}).get("example")
        assert method == "get" or example is not None, path
        if example is not None:
            schema = contents["application/json"]["schema"] | {"components": said["components"]}
            Draft202012Validator(schema).validate(example)
        answer = served.client.open(path.replace("{version}", "v1"), method=method.upper(), json=example)
        assert answer.status_code < 300, (path, answer.text)
        schema = operation["responses"][str(answer.status_code)]["content"]["application/json"]["schema"]
        if schema:
            Draft202012Validator(schema).validate(answer.get_json())


def test_the_examples_of_texts_are_answered_as_that_of_json(served: Site) -> None:
    contents = document(served)["paths"]["/invocations"]["post"]["requestBody"]["content"]
    assert list(contents) == ["application/json", "text/csv", "application/jsonlines"]
    answers = [served.post("/invocations", one["example"], kind) for kind, one in contents.items()]
    assert answers == [(200, answers[0][1])] * 3


def test_feedback_is_said_to_keep_the_first_outcome(served: Site) -> None:
    told = document(served)["paths"]["/pipelines/shop/feedback"]["post"]["description"]
    assert told == "The first outcome of an entity stays; another one is accepted and changes nothing."


@pytest.mark.parametrize("wrong", [{"rows": None}, {"rows": [{}]}, {"features": [{"nope": 1}]}, {"more": 1}])
def test_what_the_schema_of_predictions_refuses_is_refused(site: Site, wrong: dict[str, Any]) -> None:
    path = "/pipelines/shop/predict"
    schema = document(site)["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    asked = {"features": [{"price": 1.5}]}
    for body, taken in ((asked, True), (asked | wrong, False)):
        assert Draft202012Validator(schema).is_valid(body) is taken
        assert site.post(path, body)[0] == (200 if taken else 400)


def test_every_error_has_the_form_that_it_says(served: Site) -> None:
    said = document(served)
    for path, method, operation in operations(served):
        if method == "post":
            answer = served.client.post(path.replace("{version}", "v1"), json={"wrong": 1})
            schema = operation["responses"]["default"]["content"]["application/json"]["schema"]
            assert answer.status_code == 400, (path, answer.text)
            Draft202012Validator(schema | {"components": said["components"]}).validate(answer.get_json())
