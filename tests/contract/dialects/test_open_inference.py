"""`/v2` answers as the Open Inference Protocol says, held against its own OpenAPI document.

open_inference_rest.yaml is specification/protocol/open_inference_rest.yaml of
github.com/open-inference/open-inference-protocol at commit dca50b7 (Apache License 2.0), unchanged.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from contract.dialects.site import HELD_OUT, ROW, Site, bad_json

INFER = "/v2/models/shop/infer"
SPECIFICATION = yaml.safe_load((Path(__file__).parent / "open_inference_rest.yaml").read_text())
TYPES = {"id": "INT64", "at": "BYTES", "price": "FP64", "town": "BYTES"}


def hold(what: str, value: Any) -> None:
    """Against one of the specification's schemas."""
    schema = {"$ref": f"#/components/schemas/{what}", "components": SPECIFICATION["components"]}
    problems = [f"{list(error.path)}: {error.message}" for error in Draft7Validator(schema).iter_errors(value)]
    assert problems == []


def tensors(rows: list[dict[str, Any]], *, nested: bool = False) -> list[dict[str, Any]]:
    shape = [len(rows), 1] if nested else [len(rows)]
    return [
        {
            "name": name,
            "shape": shape,
            "datatype": kind,
            "data": [[row[name]] if nested else row[name] for row in rows],
        }
        for name, kind in TYPES.items()
    ]


GOOD: dict[str, Any] = {"inputs": tensors([ROW])}


def scores(answer: dict[str, Any]) -> list[float]:
    (found,) = [output["data"] for output in answer["outputs"] if output["name"] == "score"]
    return list(found)


@pytest.mark.parametrize("nested", [False, True])
def test_tensors_are_answered_with_the_bits_of_scikit_learn(site: Site, nested: bool) -> None:
    body = {"id": "q-1", "parameters": {"a": 1}, "inputs": tensors(HELD_OUT, nested=nested)}
    hold("inference_request", {"inputs": tensors(HELD_OUT[1:2])})
    status, answer = site.post(INFER, body)
    assert (status, scores(answer), answer["id"]) == (200, site.expected(HELD_OUT), "q-1")
    hold("inference_response", answer)
    assert {output["name"] for output in answer["outputs"]} == {"score", "label", "prediction_id"}
    assert all(output["shape"][0] == len(HELD_OUT) == len(output["data"]) for output in answer["outputs"])


def test_the_version_in_service_may_be_named_and_no_other(site: Site) -> None:
    assert site.post("/v2/models/shop/versions/v1/infer", GOOD)[0] == 200
    status, answer = site.post("/v2/models/shop/versions/v2/infer", GOOD)
    assert (status, "v1 is" in answer["error"]) == (404, True)
    hold("inference_error_response", answer)


def test_outputs_are_those_that_are_asked_for(site: Site, regression: Site) -> None:
    answer = site.post(INFER, {**GOOD, "outputs": [{"name": "label"}]})[1]
    assert [output["name"] for output in answer["outputs"]] == ["label"]
    assert site.post(INFER, {**GOOD, "outputs": [{"name": "logit"}]})[0] == 400
    assert scores(regression.post(INFER, GOOD)[1]) == regression.expected([ROW])
    assert regression.post(INFER, {**GOOD, "outputs": [{"name": "label"}]})[0] == 400


def test_server_and_model_describe_themselves_as_the_specification_says(site: Site) -> None:
    hold("metadata_server_response", site.client.get("/v2").get_json())
    for path in ("/v2/models/shop", "/v2/models/shop/versions/v1"):
        told = site.client.get(path).get_json()
        hold("metadata_model_response", told)
        assert {tensor["name"]: tensor["datatype"] for tensor in told["inputs"]} == TYPES
        assert site.client.get(f"{path}/ready").status_code == 200
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert site.client.get(path).status_code == 200
    assert site.client.get("/v2/models/chop/ready").status_code == 404


def test_every_path_of_the_specification_is_served(site: Site) -> None:
    rules = {
        str(rule).replace("<name>", "{model_name}").replace("<version>", "{model_version}")
        for rule in site.app.url_map.iter_rules()
    }
    wanted = {path.replace("${", "{").upper() for path in SPECIFICATION["paths"]}
    assert wanted <= {rule.upper() for rule in rules}


@pytest.mark.parametrize("what", bad_json(GOOD))
def test_a_bad_body_is_told_by_error(site: Site, what: str) -> None:
    status, answer = site.post(INFER, bad_json(GOOD)[what])
    assert status == 400
    hold("inference_error_response", answer)


def changed(name: str, /, **fields: Any) -> dict[str, Any]:
    return {"inputs": [{**tensor, **(fields if tensor["name"] == name else {})} for tensor in tensors([ROW, ROW])]}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"inputs": []}, "inputs"),
        ({"inputs": tensors([ROW])[1:]}, "id"),
        (changed("price", data=["x", 1]), "inputs[2].data[0]"),
        (changed("price", data=[1]), "inputs[2]"),
        (changed("price", shape=[3]), "inputs[2]"),
        (changed("price", shape=[-1]), "inputs[2]"),
        (changed("price", shape=[]), "inputs[2]"),
        (changed("price", datatype="FLOAT"), "inputs[2].datatype"),
        (changed("price", data={}), "inputs[2].data"),
        (changed("price", name="nope"), "nope"),
        (changed("price", name="id"), "id"),
        (changed("id", data=[1, 2.5]), "inputs[0].data[1]"),
    ],
)
def test_what_is_wrong_is_named_by_its_tensor(site: Site, body: Any, told: str) -> None:
    status, answer = site.post(INFER, body)
    assert (status, told in answer["error"]) == (400, True), answer
