"""The paths that Vertex AI gives answer as its contract for custom containers says.

https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements
"""

from pathlib import Path
from typing import Any

import pytest

from contract.dialects.site import HELD_OUT, ROW, Site, bad_json
from esteira.exceptions import SettingsInvalid
from esteira.settings import read_settings
from predictor.dialects.options import DialectOptions
from predictor.settings import PredictorSettings
from releases import BuiltRelease

PREDICT = "/vertex/predict"
GOOD: dict[str, Any] = {"instances": [ROW]}
NEEDED = {"GOOGLE_CLOUD_PROJECT": "p", "BUCKET": "b", "PUSH_AUTHENTICATION": "none"}


def test_instances_are_answered_by_predictions_with_the_bits_of_scikit_learn(site: Site) -> None:
    assert site.post(PREDICT, {"instances": HELD_OUT}) == (200, {"predictions": site.expected(HELD_OUT)})


def test_parameters_choose_the_output(site: Site) -> None:
    body = {"instances": HELD_OUT[:5], "parameters": {"output": "all"}}
    told = site.post(PREDICT, body)[1]["predictions"]
    assert [one["score"] for one in told] == site.expected(HELD_OUT[:5])
    assert site.post(PREDICT, {**body, "parameters": {"top_k": 3}})[0] == 400


def test_health_is_200_once_a_release_serves(site: Site) -> None:
    assert site.client.get("/vertex/health").status_code == 200


@pytest.mark.parametrize("what", bad_json(GOOD))
def test_a_bad_body_is_told_by_error(site: Site, what: str) -> None:
    status, answer = site.post(PREDICT, bad_json(GOOD)[what])
    assert (status, list(answer)) == (400, ["error"])


def test_without_the_variables_there_are_no_such_paths(regression: Site) -> None:
    assert regression.client.post(PREDICT, json=GOOD).status_code == 404


def test_its_paths_come_before_all_others(built: BuiltRelease, tmp_path: Path) -> None:
    own = Site(built, tmp_path, DialectOptions(health_route="/ping", predict_route="/invocations"))
    assert own.post("/invocations", GOOD)[1] == {"predictions": own.expected([ROW])}
    assert own.client.get("/ping").get_json() == {"status": "ready"}


def test_the_variables_are_read() -> None:
    environ = {"AIP_HTTP_PORT": "8081", "AIP_HEALTH_ROUTE": "/h", "AIP_PREDICT_ROUTE": "/v1/endpoints/1:predict"}
    options = read_settings(PredictorSettings, {**NEEDED, **environ}).dialect_options
    assert (options.health_route, options.predict_route) == ("/h", "/v1/endpoints/1:predict")
    with pytest.raises(SettingsInvalid, match="AIP_HEALTH_ROUTE"):
        read_settings(PredictorSettings, {**NEEDED, "AIP_HEALTH_ROUTE": "health"})
