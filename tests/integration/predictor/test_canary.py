"""A canary in the predictor, with releases and pointers of a real bucket."""

import weakref
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask.testing import FlaskClient

from esteira.bucket import Bucket
from esteira.events import PredictionsServed, decode
from esteira.release import Challenger, Pointer, pointer_path, release_path
from following import Following
from predictor.app import create_app
from predictor.arms import takes_challenger
from predictor.prediction_log import PredictionLog
from publishers import Mailbox, publish_spools
from releases import BuiltRelease, build_release, raw_rows

SHARE = 0.4


class World:
    """A predictor, and the bucket that it follows."""

    def __init__(self, bucket: Bucket, folder: Path) -> None:
        self.bucket = bucket
        self.mailbox = Mailbox()
        self.following = Following(bucket, folder)
        self.servings = self.following.servings
        self.spool = folder / "spool"
        self.log = PredictionLog(self.mailbox, folder / "spool")  # type: ignore[arg-type]
        app = create_app(self.servings, self.log, self.mailbox, None)  # type: ignore[arg-type]
        self.client: FlaskClient = app.test_client()
        self.champion = build_release(folder / "one", "v1")
        self.challenger = build_release(folder / "two", "v2", seed=5, sqlite=False)
        for built in (self.champion, self.challenger):
            built.upload(bucket)

    def point(self, champion: BuiltRelease, challenger: BuiltRelease | None = None, share: float = SHARE) -> None:
        self.write(msgspec.structs.replace(champion.pointer(), challenger=named(challenger, share)))

    def write(self, pointer: Pointer) -> None:
        found = self.bucket.read_versioned(path := pointer_path("shop"))
        data = msgspec.json.encode(msgspec.structs.replace(pointer, generation=(found[1] if found else 0) % 10**6))
        self.bucket.write_if(path, data, found[1] if found else 0)
        self.following.refresh()

    def predict(self, row: dict[str, Any]) -> tuple[int, Any]:
        answer = self.client.post("/pipelines/shop/predict", json={"rows": [row]})
        return answer.status_code, answer.get_json()

    def versions(self, rows: list[dict[str, Any]]) -> dict[int, str]:
        return {row["id"]: self.predict(row)[1]["model_version"] for row in rows}

    def described(self) -> Any:
        return self.client.get("/pipelines/shop").get_json()

    def told(self) -> list[PredictionsServed]:
        publish_spools(self.mailbox, self.spool)
        return [decode(PredictionsServed, m.data, m.attributes) for m in self.mailbox.messages]


def named(built: BuiltRelease | None, share: float) -> Challenger | None:
    if built is None:
        return None
    version = built.release.version
    return Challenger(
        version=version, path=release_path("shop", version), sha256=built.sha256, share=share, reason="beats v1"
    )


@pytest.fixture
def world(infrastructure: object, bucket_name: str, pubsub_project: str, tmp_path: Path) -> World:
    return World(Bucket(bucket_name, pubsub_project), tmp_path)


def test_both_arms_answer_for_their_entities_and_the_log_says_which(world: World) -> None:
    world.point(world.champion, world.challenger)
    rows = raw_rows(60)
    answered = world.versions(rows)
    assert answered == {i: "v2" if takes_challenger("v2", str(i), SHARE) else "v1" for i in range(60)}
    logged = {int(p.entity or -1): event.model_version for event in world.told() for p in event.predictions}
    assert logged == answered
    assert len(world.told()) == 2
    assert all(event.microseconds > 0 for event in world.told())
    told = {"version": "v2", "mode": "canary", "share": SHARE, "reason": "beats v1", "serving": True, "refused": None}
    assert world.described()["challenger"] == told


def test_requests_with_features_are_the_champions(world: World) -> None:
    world.point(world.champion, world.challenger, share=0.999)
    body = {"features": [{"price": 3.0, "town": "Rome", "size": 2.0}]}
    assert world.client.post("/pipelines/shop/predict", json=body).get_json()["model_version"] == "v1"


def test_a_challenger_that_is_damaged_never_disturbs_the_champion(world: World) -> None:
    broken = Challenger(version="v2", path=release_path("shop", "v2"), sha256="0" * 64, share=0.9)
    world.write(msgspec.structs.replace(world.champion.pointer(), challenger=broken))
    assert set(world.versions(raw_rows(20)).values()) == {"v1"}
    found = world.described()["challenger"]
    assert (found["serving"], "expected 000" in found["refused"]) == (False, True)
    assert world.client.get("/health/ready").status_code == 200


def test_a_challenger_that_is_not_there_yet_is_looked_for_again(world: World, tmp_path: Path) -> None:
    late = build_release(tmp_path / "late", "v3", seed=3)
    world.point(world.champion, late, share=0.9)
    assert "does not exist" in world.described()["challenger"]["refused"]
    late.upload(world.bucket)
    world.following.refresh()
    assert world.described()["challenger"]["serving"] is True


def test_a_challenger_that_fails_is_counted_and_the_champion_answers(world: World) -> None:
    world.point(world.champion, world.challenger, share=0.999)
    row = next(row for row in raw_rows(20) if takes_challenger("v2", str(row["id"]), 0.999))
    serving = world.servings.get("shop")
    assert serving.challenger is not None
    serving.challenger.close()  # its DuckDB is gone: every row fails
    status, answer = world.predict(row)
    assert (status, answer["model_version"]) == (200, "v1")
    failures = {event.model_version: event.failures for event in world.told()}
    assert failures == {"v1": 0, "v2": 1}


def test_a_request_that_both_refuse_is_the_clients_mistake(world: World) -> None:
    world.point(world.champion, world.challenger, share=0.999)
    row = {**raw_rows(1)[0], "id": 4, "price": -1}
    status, answer = world.predict(row)
    assert (status, answer["error"]["problems"][0]["path"]) == (400, "rows[0].price")
    assert world.told() == []


def test_a_promoted_challenger_keeps_its_memory_and_a_dropped_one_gives_it_back(world: World) -> None:
    world.point(world.champion, world.challenger)
    serving = world.servings.get("shop")
    assert serving.challenger is not None
    tried, replaced = weakref.ref(serving.challenger.query), weakref.ref(serving.runtime.query)
    del serving
    world.point(world.challenger)
    assert (tried(), replaced()) == (world.servings.get("shop").runtime.query, None)
    world.point(world.challenger, world.champion)
    dropped = weakref.ref(world.servings.get("shop").challenger.query)  # type: ignore[union-attr]
    world.point(world.challenger)
    assert dropped() is None
    assert world.described()["challenger"] is None
