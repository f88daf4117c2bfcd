"""The recorded sample of production requests, as `esteira validate` finds it in the bucket."""

import hashlib
from datetime import timedelta
from typing import Any
from uuid import uuid4

import msgspec
from sqlalchemy import insert

from esteira.bucket import Bucket
from esteira.events import Prediction
from esteira.samples import SAMPLE_ROWS, Sample, sample_path
from esteira.tables import releases

from .conftest import PIPELINE, World


def release_with_threshold(world: World, version: str, threshold: float) -> None:
    world.release("other")
    profile = world.bucket.read(f"releases/{PIPELINE}/other/profile.json")
    listed = {"profile.json": {"sha256": hashlib.sha256(profile).hexdigest(), "size": len(profile)}}
    manifest = msgspec.json.encode({"files": listed, "threshold": threshold})
    path = f"releases/{PIPELINE}/{version}/"
    world.bucket.upload_once(f"{path}profile.json", profile)
    world.bucket.upload_once(f"{path}release.json", manifest)
    row = {"pipeline": PIPELINE, "version": version, "path": path, "sha256": hashlib.sha256(manifest).hexdigest()}
    row |= {"training_run_id": uuid4(), "dataset_number": 1, "metrics": {}, "gates": [], "approved": True}
    world.write(insert(releases).values(**row))


def with_rows(predictions: list[Prediction], every: int = 1) -> list[Prediction]:
    """Every so many keep their raw row, each of which says which prediction it belongs to."""
    return [
        msgspec.structs.replace(prediction, row={"parcel": prediction.entity, "weight": position / 7, "depot": None})
        if position % every == 0
        else prediction
        for position, prediction in enumerate(predictions)
    ]


def sample(bucket: Bucket, version: str) -> Sample:
    return msgspec.json.decode(bucket.read(sample_path(PIPELINE, version)), type=Sample)


def test_sampled_predictions_reach_the_bucket_as_they_were_answered(world: World) -> None:
    release_with_threshold(world, "r2", 0.3)
    world.promote("r2", generation=2)
    sent = with_rows(world.predictions(40), every=2)
    assert world.serve(sent, version="r2") == 204
    assert world.reconcile()["sampled"] == 1
    found = sample(world.bucket, "r2")
    expected: dict[Any, Prediction] = {prediction.id: prediction for prediction in sent if prediction.row}
    assert (found.pipeline, found.version, len(found.predictions)) == (PIPELINE, "r2", 20)
    for prediction in found.predictions:
        answered = expected.pop(prediction.id)
        assert prediction.row == answered.row
        assert prediction.features == answered.features
        assert (prediction.score, prediction.label) == (answered.score, answered.score >= 0.3)


def test_no_sample_is_written_where_no_row_was_kept(world: World) -> None:
    assert world.serve(world.predictions(10)) == 204
    assert world.reconcile()["sampled"] == 0
    assert world.bucket.list("samples/") == []


def test_a_sample_holds_the_newest_rows_and_is_written_once_a_minute_at_most(world: World) -> None:
    rows = with_rows(world.predictions(SAMPLE_ROWS + 20))
    old = [msgspec.structs.replace(row, served_at=row.served_at - timedelta(hours=1)) for row in rows[:20]]
    assert world.serve(old + rows[20:]) == 204
    assert world.reconcile()["sampled"] == 1
    assert {found.id for found in sample(world.bucket, "r1").predictions} == {row.id for row in rows[20:]}
    assert world.serve(with_rows(world.predictions(5))) == 204
    world.start()  # another process looks for itself, and finds that the sample is fresh
    assert world.reconcile()["sampled"] == 0
