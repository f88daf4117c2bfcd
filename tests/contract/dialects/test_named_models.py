"""`/v1/models` answers as the REST API of TensorFlow Serving and version 1 of KServe's protocol say."""

from typing import Any

import pytest

from contract.dialects.site import HELD_OUT, ROW, Site, bad_json

PREDICT = "/v1/models/shop:predict"
GOOD: dict[str, Any] = {"instances": [ROW]}


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_rows_are_answered_by_predictions_with_the_bits_of_scikit_learn(site: Site) -> None:
    assert site.post(PREDICT, {"instances": HELD_OUT}) == (200, {"predictions": site.expected(HELD_OUT)})


def test_arrays_are_rows_in_the_order_of_the_schema(site: Site) -> None:
    rows = [list(row.values()) for row in HELD_OUT]
    assert site.post(PREDICT, {"instances": rows}) == (200, {"predictions": site.expected(HELD_OUT)})


def test_columns_are_answered_by_outputs(site: Site) -> None:
    body = {"signature_name": "serving_default", "inputs": columns(HELD_OUT)}
    assert site.post(PREDICT, body) == (200, {"outputs": site.expected(HELD_OUT)})


def test_features_are_told_from_rows_by_their_names(site: Site) -> None:
    found = site.features(HELD_OUT)
    features = [{name: found[name][at] for name in ("price", "town", "size")} for at in range(len(HELD_OUT))]
    assert site.post(PREDICT, {"instances": features}) == (200, {"predictions": site.expected(HELD_OUT)})


def test_a_regression_answers_its_values(regression: Site) -> None:
    assert regression.post(PREDICT, {"instances": HELD_OUT})[1] == {"predictions": regression.expected(HELD_OUT)}


def test_answers_name_the_release_and_the_request(site: Site) -> None:
    answer = site.client.post(PREDICT, json=GOOD, headers={"X-Request-Id": "r-1"})
    assert (answer.headers["X-Model-Version"], answer.headers["X-Request-Id"]) == ("v1", "r-1")
    assert "X-Request-Id" in site.client.post(PREDICT, json={}).headers


def test_what_curl_posts_is_taken_as_json(site: Site) -> None:
    assert site.post(PREDICT, GOOD, "application/x-www-form-urlencoded")[0] == 200


def test_models_are_listed_and_described(site: Site) -> None:
    assert site.client.get("/v1/models").get_json() == {"models": ["shop"]}
    answer = site.client.get("/v1/models/shop").get_json()
    assert (answer["name"], answer["ready"]) == ("shop", True)
    (status,) = answer["model_version_status"]
    assert (status["version"], status["state"], status["status"]["error_code"]) == ("v1", "AVAILABLE", "OK")


@pytest.mark.parametrize("what", bad_json(GOOD))
def test_a_bad_body_has_the_dialects_error(site: Site, what: str) -> None:
    status, answer = site.post(PREDICT, bad_json(GOOD)[what])
    assert (status, list(answer)) == (400, ["error"])
    assert answer["error"]


@pytest.mark.parametrize(
    "body, told",
    [
        ({"instances": []}, "instances: holds 0 rows"),
        ({"instances": [ROW] * 1001}, "instances: holds 1001 rows"),
        ({"instances": {}}, "instances: "),
        ({"instances": [ROW, 3]}, "instances[1]: expected an object"),
        ({"instances": [ROW, [1, 2]]}, "instances[1]: holds 2 values, expected 4: id, at, price, town"),
        ({"instances": [ROW, {**ROW, "price": "x", "nope": 1}]}, "instances[1].price: expected a finite number"),
        ({"instances": [ROW, {**ROW, "price": "x", "nope": 1}]}, "instances[1].nope: unknown column"),
        ({"instances": [{"price": 1.5}, {"price": "x"}]}, "instances[1].price: expected a finite number"),
        ({"instances": [{}]}, "instances[0].id: missing"),
        ({"inputs": {}}, "inputs: column 'id' is missing"),
        ({"inputs": {**columns([ROW]), "nope": [1]}}, "inputs.nope: unknown column"),
        ({"inputs": {**columns([ROW]), "price": 1}}, "inputs.price: expected an array"),
        ({"inputs": {**columns([ROW]), "price": [1, 2]}}, "inputs: the columns have different numbers of values"),
        ({"inputs": columns([ROW, {**ROW, "price": "x"}])}, "inputs.price[1]: expected a finite number"),
        ({**GOOD, "inputs": columns([ROW])}, "send either"),
        ({**GOOD, "signature_name": "other"}, "signature_name: "),
        ({**GOOD, "nope": 1}, "nope"),
    ],
)
def test_what_is_wrong_is_named_in_the_dialects_places(site: Site, body: Any, told: str) -> None:
    status, answer = site.post(PREDICT, body)
    assert (status, told in answer["error"]) == (400, True), answer


def test_other_wrong_requests_have_their_status_and_the_dialects_error(site: Site) -> None:
    assert site.client.post("/v1/models/chop:predict", json=GOOD).status_code == 404
    assert site.client.get("/v1/models/chop").get_json()["error"].startswith("no release of a pipeline 'chop'")
    for status, answer in (
        site.post(PREDICT, "x", "text/plain"),
        site.post(PREDICT, GOOD, **{"Content-Encoding": "gzip"}),
    ):
        assert (status, list(answer)) == (415, ["error"])
    status, answer = site.post(PREDICT, b" " * ((4 << 20) + 1))
    assert (status, list(answer)) == (413, ["error"])
