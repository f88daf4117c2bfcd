import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask.testing import FlaskClient

from esteira.release import EXPLANATION
from predictor.app import create_app
from predictor.inference import MAX_EXPLAINED
from predictor.prediction_log import PredictionLog
from predictor.serving import Servings
from publishers import Nowhere
from releases import BuiltRelease, build_release, raw_rows, write_manifest

PREDICT = "/pipelines/shop/predict"


def serve(built: BuiltRelease, cache: Path, sha256: str) -> tuple[FlaskClient, PredictionLog]:
    built.folder.rename(cache / sha256)
    servings = Servings(cache)
    servings.serve("shop", msgspec.structs.replace(built.pointer(), sha256=sha256), cache / sha256)
    log = PredictionLog(Nowhere(), cache / "spool")  # type: ignore[arg-type]
    return create_app(servings, log, Nowhere(), None).test_client(), log  # type: ignore[arg-type]


@pytest.fixture
def shop(tmp_path: Path) -> tuple[FlaskClient, PredictionLog]:
    built = build_release(tmp_path)
    return serve(built, tmp_path, built.sha256)


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=UTF-8"])
def test_contributions_sum_to_the_score_before_its_link(shop: tuple[FlaskClient, PredictionLog], kind: str) -> None:
    client, _ = shop
    given: dict[str, Any] = {"rows": raw_rows(40, seed=8)}
    plain = client.post(PREDICT, json=given, content_type=kind).get_json()["predictions"]
    told = client.post(PREDICT, json={**given, "explain": True}, content_type=kind).get_json()["predictions"]
    assert [one["score"] for one in told] == [one["score"] for one in plain]
    assert all("explanation" not in one for one in plain)
    for one in told:
        why = one["explanation"]
        assert set(why["contributions"]) == {"price", "huge", "town", "size"}
        raw = math.log(one["score"] / (1 - one["score"]))
        assert why["base"] + sum(why["contributions"].values()) == pytest.approx(raw, abs=1e-9)


def test_features_are_explained_too(shop: tuple[FlaskClient, PredictionLog]) -> None:
    features = [{"price": 1.0, "huge": None, "town": "Rome", "size": 2.0}]
    answer = shop[0].post(PREDICT, json={"features": features, "explain": True})
    assert answer.get_json()["predictions"][0]["explanation"]["contributions"]["huge"] == 0


@pytest.mark.parametrize("explain", ["yes", 1, None])
def test_explain_is_true_or_false(shop: tuple[FlaskClient, PredictionLog], explain: Any) -> None:
    answer = shop[0].post(PREDICT, json={"rows": raw_rows(1), "explain": explain})
    assert (answer.status_code, answer.get_json()["error"]["problems"][0]["path"]) == (400, "explain")


def test_too_many_rows_to_explain_are_refused_and_not_logged(shop: tuple[FlaskClient, PredictionLog]) -> None:
    client, log = shop
    answer = client.post(PREDICT, json={"rows": raw_rows(MAX_EXPLAINED + 1), "explain": True})
    assert (answer.status_code, log.added) == (400, 0)
    assert client.post(PREDICT, json={"rows": raw_rows(MAX_EXPLAINED), "explain": True}).status_code == 200


def test_a_release_without_explanations_says_so(tmp_path: Path) -> None:
    built = build_release(tmp_path)
    (built.folder / EXPLANATION).unlink()
    del built.release.files[EXPLANATION]
    client, log = serve(built, tmp_path, write_manifest(built.folder, built.release))
    answer = client.post(PREDICT, json={"rows": raw_rows(1), "explain": True})
    assert (answer.status_code, answer.get_json()["error"]["problems"][0]["path"]) == (400, "explain")
    assert log.added == 0
    assert client.post(PREDICT, json={"rows": raw_rows(1)}).status_code == 200
