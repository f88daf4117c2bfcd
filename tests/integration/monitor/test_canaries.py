"""The monitor judges canaries by what was served since they began, and ends those whose verdict is clear."""

import threading
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from esteira.bucket import Bucket
from esteira.events import Outcome, Prediction, PredictionsServed
from esteira.promotions import find_standing, promote, rollback
from esteira.release import Pointer, pointer_path
from monitor.arms import read_arm

from .conftest import PIPELINE, World


@pytest.fixture
def trial(world: World) -> World:
    """A canary of r2 against r1, for a pipeline that promotes by canary."""
    spec = world.pipelines[PIPELINE].spec
    spec = msgspec.structs.replace(
        spec, promotion="canary", canary=msgspec.structs.replace(spec.canary, min_predictions=150)
    )
    world.pipelines[PIPELINE] = msgspec.structs.replace(world.pipelines[PIPELINE], spec=spec)
    world.release("r2")
    begin(world, "r2", 0.3)
    world.start()
    return world


def by_hand(world: World) -> None:
    """The same canary, begun by a person."""
    loaded = world.pipelines[PIPELINE]
    spec = msgspec.structs.replace(loaded.spec, promotion="manual")
    world.pipelines[PIPELINE] = msgspec.structs.replace(loaded, spec=spec)
    world.start()


def begin(world: World, version: str, share: float) -> None:
    with Session(world.engine) as session, session.begin():
        promote(session, PIPELINE, version, reason="test", by="test", share=share)


def canary(world: World) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(world.client.get(f"/pipelines/{PIPELINE}/canary").data)
    return found


def standing(world: World) -> tuple[int, str | None, str | None]:
    with Session(world.engine) as session:
        found = find_standing(session, PIPELINE)
    champion, challenger = found.champion, found.challenger
    versions = [release.version if release else None for release in (champion, challenger)]
    return found.generation, versions[0], versions[1]


def newest(world: World) -> tuple[str, str]:
    (row,) = world.rows("SELECT by, reason FROM promotions ORDER BY generation DESC LIMIT 1")
    return row.by, row.reason


def shifted(predictions: list[Prediction]) -> list[Prediction]:
    return [msgspec.structs.replace(row, score=1 - row.score) for row in predictions]


def pointer(bucket: Bucket) -> Pointer:
    return msgspec.json.decode(bucket.read(pointer_path(PIPELINE)), type=Pointer)


def test_a_canary_waits_for_predictions_and_says_how_far_it_is(trial: World) -> None:
    trial.serve(trial.predictions(400), "r1")
    trial.serve(trial.predictions(20), "r2")
    assert trial.reconcile()["canaries"] == 0
    found = canary(trial)
    assert (found["champion"], found["challenger"], found["share"], found["generation"]) == ("r1", "r2", 0.3, 2)
    assert (found["verdict"], found["reasons"][0][:26]) == ("waiting", "20 of 150 predictions of t")
    assert [found["arms"][arm]["predictions"] for arm in ("champion", "challenger")] == [400, 20]
    assert standing(trial) == (2, "r1", "r2")


def test_a_good_canary_is_promoted_with_its_figures_as_the_reason(trial: World) -> None:
    trial.serve(trial.predictions(400), "r1")
    trial.serve(trial.predictions(200), "r2")
    assert trial.reconcile()["canaries"] == 1
    assert standing(trial) == (3, "r2", None)
    by, reason = newest(trial)
    assert (by, reason[:14]) == ("monitor", "canary of r2: ")
    assert "200 predictions of the challenger" in reason
    assert (pointer(trial.bucket).version, pointer(trial.bucket).challenger) == ("r2", None)
    assert {message.topic for message in trial.mailbox.messages} == {"model-promoted"}
    assert (canary(trial)["verdict"], canary(trial)["challenger"]) == (None, None)


def test_a_canary_that_a_person_began_is_left_for_the_person_to_promote(trial: World) -> None:
    by_hand(trial)
    trial.serve(trial.predictions(400), "r1")
    trial.serve(trial.predictions(200), "r2")
    assert trial.reconcile()["canaries"] == 0
    assert (canary(trial)["verdict"], standing(trial)) == ("promote", (2, "r1", "r2"))


def test_a_canary_that_does_harm_is_rolled_back_whoever_began_it(trial: World) -> None:
    by_hand(trial)
    trial.serve(trial.predictions(400), "r1")
    trial.serve(shifted(trial.predictions(200)), "r2")
    assert canary(trial)["score_psi"] > 0.25
    assert trial.reconcile()["canaries"] == 1
    assert standing(trial) == (3, "r1", None)
    assert "PSI" in newest(trial)[1]
    assert pointer(trial.bucket).challenger is None


def test_outcomes_decide_where_there_are_enough(trial: World) -> None:
    champions, challengers = trial.predictions(400), shifted(trial.predictions(300))
    trial.serve(champions, "r1")
    trial.serve(challengers, "r2")
    right = [msgspec.structs.replace(row, score=1 - row.score) for row in challengers]
    trial.observe(trial.outcomes(champions) + trial.outcomes(right))
    found = canary(trial)
    assert (found["verdict"], found["arms"]["challenger"]["labelled"]) == ("rollback", 300)
    assert found["difference"]["high"] < 0
    assert found["arms"]["champion"]["performance"]["value"] > 0.5 > found["arms"]["challenger"]["performance"]["value"]


def test_of_more_labelled_entities_than_are_read_a_sample_is_drawn_whatever_their_names(trial: World) -> None:
    since = datetime.now(UTC)
    rows = trial.predictions(400)
    named = [msgspec.structs.replace(row, entity=f"{'ab'[number % 2]}-{number}") for number, row in enumerate(rows)]
    trial.serve(named, "r2")
    trial.observe([Outcome(entity=row.entity or "", label=float((row.entity or "")[0] == "a")) for row in named])
    with Session(trial.engine) as session:
        drawn, again = (read_arm(session, PIPELINE, "r2", since, most=100).labelled for _ in range(2))
    assert len(drawn) == 100
    assert 30 < drawn.labels.sum() < 70
    assert drawn.scores.tolist() == again.scores.tolist()


def test_a_canary_without_evidence_in_its_time_is_rolled_back(trial: World) -> None:
    trial.write(text("UPDATE promotions SET created_at = now() - interval '61 minutes' WHERE generation = 2"))
    trial.serve(trial.predictions(400), "r1")
    assert trial.reconcile()["canaries"] == 1
    assert standing(trial) == (3, "r1", None)
    assert "not enough evidence after 60 minutes" in newest(trial)[1]


def test_failures_of_the_challenger_roll_it_back_at_once(trial: World) -> None:
    event = PredictionsServed(pipeline=PIPELINE, model_version="r2", predictions=[], failures=12)
    for _ in range(2):
        assert trial.push(event, event_id="the-same") == 204
    assert canary(trial)["arms"]["challenger"]["failures"] == 12
    trial.reconcile()
    assert "failed to answer 12 of 12 rows" in newest(trial)[1]


def test_predictions_of_before_the_canary_and_of_no_entity_do_not_count(trial: World) -> None:
    early = [
        msgspec.structs.replace(row, served_at=row.served_at.replace(year=row.served_at.year - 1))
        for row in trial.predictions(50)
    ]
    nameless = [msgspec.structs.replace(row, entity=None) for row in trial.predictions(30)]
    trial.serve(early, "r1")
    trial.serve(nameless, "r1")
    trial.serve(trial.predictions(7), "r1")
    assert canary(trial)["arms"]["champion"]["predictions"] == 7


def test_a_person_who_is_quicker_than_the_monitor_is_not_overruled(trial: World) -> None:
    """The row of the person commits between the monitor's look at the ledger and its own row."""
    trial.serve(trial.predictions(400), "r1")
    trial.serve(trial.predictions(200), "r2")
    done: list[int] = []
    monitor = threading.Thread(target=lambda: done.append(trial.reconcile()["canaries"]))
    with trial.engine.connect() as person, person.begin():
        person.execute(text("LOCK TABLE servings IN ACCESS EXCLUSIVE MODE"))  # where the monitor reads on
        monitor.start()
        wait_until_blocked(trial)
        with Session(trial.engine) as session, session.begin():
            rollback(session, PIPELINE, reason="enough of it", by="ana")
    monitor.join(30)
    assert done == [0]
    assert (standing(trial), newest(trial)) == ((3, "r1", None), ("ana", "enough of it"))


def wait_until_blocked(world: World) -> None:
    deadline = time.monotonic() + 20
    waiting = "SELECT pid FROM pg_locks WHERE relation = 'servings'::regclass AND NOT granted"
    while not world.rows(waiting):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_windows_are_judged_by_the_champion_not_the_challenger(trial: World) -> None:
    trial.write(text("""UPDATE releases SET metrics = '{"roc_auc": 0.66}'"""))
    predictions = trial.predictions(600)
    trial.serve(predictions, "r1")
    trial.serve(trial.predictions(20), "r2")
    trial.observe(trial.outcomes(predictions))
    (window,) = trial.windows()
    decided = {version["model_version"]: version["decision"] for version in window["versions"]}
    assert (decided["r1"], decided["r2"]) == ("not-needed", None)
    status = trial.status()
    assert (status["champion"]["version"], status["challenger"]["version"]) == ("r1", "r2")
    page = trial.client.get("/").data.decode()
    assert "canary of" in page


def test_nothing_is_told_of_a_pipeline_without_a_canary(world: World) -> None:
    found = canary(world)
    assert (found["verdict"], found["challenger"], found["champion"]) == (None, None, "r1")
    assert world.client.get("/pipelines/nothing/canary").status_code == 404


def test_how_releases_served_is_forgotten_in_time(trial: World) -> None:
    trial.push(PredictionsServed(pipeline=PIPELINE, model_version="r2", predictions=[], failures=1))
    trial.write(text("UPDATE servings SET minute = now() - interval '9 days'"))
    trial.reconcile()
    assert trial.rows("SELECT * FROM servings") == []
    assert np.isfinite(canary(trial)["minutes"])
