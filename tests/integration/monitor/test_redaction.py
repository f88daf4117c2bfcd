"""A feature that is not logged is left out of drift, and said so; it does not look as if it were missing."""

import hashlib
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy import insert

from esteira.events import Prediction
from esteira.redaction import ColumnRule, Redaction, hash_value, is_drawn
from esteira.tables import releases

from .conftest import PIPELINE, World

SHARE = 0.5


def withhold(world: World, rule: ColumnRule) -> None:
    """A champion whose feature `depot` has the rule."""
    profile = msgspec.json.encode(world._profile())
    listed = {"profile.json": {"sha256": hashlib.sha256(profile).hexdigest(), "size": len(profile)}}
    manifest = msgspec.json.encode({"files": listed, "redaction": Redaction(features={"depot": rule})})
    path = f"releases/{PIPELINE}/r2/"
    world.bucket.upload_once(f"{path}profile.json", profile)
    world.bucket.upload_once(f"{path}release.json", manifest)
    row = {"pipeline": PIPELINE, "version": "r2", "path": path, "sha256": hashlib.sha256(manifest).hexdigest()}
    row |= {"training_run_id": uuid4(), "dataset_number": 1, "metrics": {"roc_auc": 0.8}, "gates": [], "approved": True}
    world.write(insert(releases).values(**row))
    world.promote("r2", generation=2)


def logged(row: Prediction, rule: ColumnRule) -> Prediction:
    weight, depot = row.features
    return msgspec.structs.replace(row, features=[weight, rule.apply("depot", depot, row.id)])


def drift(world: World) -> dict[str, Any]:
    found = msgspec.json.decode(world.client.get(f"/pipelines/{PIPELINE}/drift").data)
    return {feature["feature"]: feature for feature in found["features"]}


def judged(world: World, rule: ColumnRule, rows: int = 400) -> list[Prediction]:
    withhold(world, rule)
    sent = [logged(row, rule) for row in world.predictions(rows)]
    assert world.serve(sent, version="r2") == 204
    world.settle()
    assert world.reconcile()["judged"] == 1
    return sent


@pytest.mark.parametrize("log", ["never", "hashed"])
def test_a_feature_that_is_not_logged_in_clear_is_not_measured_and_raises_no_alarm(world: World, log: Any) -> None:
    sent = judged(world, ColumnRule(log=log))
    depots = {row.features[1] for row in sent}
    assert depots == ({None} if log == "never" else {hash_value("depot", "north"), hash_value("depot", "south")})
    found = drift(world)
    assert (found["depot"]["psi"], found["depot"]["verdict"], found["depot"]["withheld"]) == (None, "insufficient", log)
    assert found["weight"]["psi"] is not None
    (window,) = world.windows()
    assert window["max_psi_feature"] == "weight"
    assert world.rows("SELECT 1 FROM profiles WHERE feature = 1") == []
    (check,) = world.rows("SELECT details FROM checks WHERE name = 'psi' AND subject = 'depot'")
    assert check.details["reason"] == f"not logged in clear (prediction_log.columns: {log})"
    assert f"not logged: {log}" in world.client.get("/").get_data(as_text=True)


def test_a_feature_that_is_logged_for_a_share_is_measured_on_that_share(world: World) -> None:
    sent = judged(world, ColumnRule(log="sampled", sample=SHARE))
    drawn = [row for row in sent if is_drawn(row.id, SHARE)]
    assert 100 < len(drawn) < 300
    assert all((row.features[1] is not None) == is_drawn(row.id, SHARE) for row in sent)
    counted = world.rows("SELECT sum(count) AS rows FROM profiles WHERE feature = 1")
    assert int(counted[0].rows) == len(drawn)
    found = drift(world)["depot"]
    assert (found["verdict"], found["logged_share"]) == ("ok", SHARE)
    assert found["psi"] < 0.1


def test_without_the_rule_the_same_predictions_would_be_an_alarm(world: World) -> None:
    never = ColumnRule(log="never")
    world.serve([logged(row, never) for row in world.predictions(400)])
    world.settle()
    world.reconcile()
    assert drift(world)["depot"]["verdict"] == "alarm"
