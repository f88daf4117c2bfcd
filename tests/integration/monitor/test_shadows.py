"""What shadows score is stored beside what was served, never among it, and judged on the same rows."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from esteira.events import Prediction, PredictionsServed
from esteira.promotions import find_standing, promote
from esteira.release import Pointer, pointer_path
from esteira.samples import Sample, sample_path

from .conftest import PIPELINE, World


@pytest.fixture
def trial(world: World) -> World:
    """A shadow of r2 beside r1, for a pipeline that promotes so."""
    change(world, "shadow")
    world.release("r2")
    with Session(world.engine) as session, session.begin():
        promote(session, PIPELINE, "r2", reason="test", by="test", share=0.5, shadow=True)
    world.start()
    return world


def change(world: World, promotion: str) -> None:
    loaded = world.pipelines[PIPELINE]
    canary = msgspec.structs.replace(loaded.spec.canary, min_predictions=150)
    spec = msgspec.structs.replace(loaded.spec, promotion=promotion, canary=canary)  # type: ignore[arg-type]
    world.pipelines[PIPELINE] = msgspec.structs.replace(loaded, spec=spec)
    world.start()


def shadow(world: World, rows: list[Prediction], event_id: str | None = None, failures: int = 0) -> int:
    event = PredictionsServed(
        pipeline=PIPELINE, model_version="r2", predictions=rows, failures=failures, microseconds=90, shadow=True
    )
    return world.push(event, event_id)


def near(rows: list[Prediction], shift: float = 0.01) -> list[Prediction]:
    """What another release makes of the same rows."""
    return [msgspec.structs.replace(row, score=min(1.0, row.score + shift), row=None) for row in rows]


def canary(world: World) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(world.client.get(f"/pipelines/{PIPELINE}/canary").data)
    return found


def count(world: World, table: str) -> int:
    return int(world.scalar(text(f"SELECT count(*) FROM {table}")))


def test_a_shadow_counts_in_nothing_that_was_served(trial: World) -> None:
    served = trial.predictions(200)
    trial.serve(served)
    trial.observe(trial.outcomes(served))
    before, profiles = trial.windows(), count(trial, "profiles")
    shadow(trial, near(served), failures=3)
    trial.settle()
    trial.reconcile()
    (window,) = trial.windows()
    same = ("requests", "labelled", "auc", "log_loss", "max_psi", "decision")
    assert {name: window[name] for name in same} == {name: before[0][name] for name in same}
    assert [version["model_version"] for version in window["versions"]] == ["r1"]
    assert (count(trial, "predictions"), count(trial, "shadow_predictions"), trial.status()["predictions"]) == (
        200,
        200,
        200,
    )
    assert (count(trial, "profiles"), count(trial, "servings"), count(trial, "shadow_servings")) == (profiles, 1, 1)


def test_a_shadow_marks_no_window_to_be_judged(trial: World) -> None:
    assert shadow(trial, trial.predictions(5)) == 204
    assert count(trial, "checks") == 0


@pytest.mark.parametrize("late", ["answers", "shadows"])
def test_in_whatever_order_and_however_often_they_come_both_arms_have_each_row_once(trial: World, late: str) -> None:
    served = trial.predictions(160)
    scored = near(served[:155])
    first, last = (trial.serve, shadow) if late == "shadows" else (shadow, trial.serve)
    for push in (first, last):
        rows = scored if push is shadow else served
        deliveries = [(rows[:100], "one"), (rows[:100], "one"), (rows[60:], "two"), (rows[::-1], None)]
        with ThreadPoolExecutor(3) as pool:
            if push is shadow:
                answers = list(pool.map(lambda d: shadow(trial, d[0], d[1]), deliveries))
            else:
                answers = list(pool.map(lambda d: trial.serve(d[0], event_id=d[1] and f"served-{d[1]}"), deliveries))
        assert answers == [204] * 4
    found = canary(trial)
    assert {arm: found["arms"][arm]["predictions"] for arm in ("champion", "challenger")} == {
        "champion": 155,
        "challenger": 155,
    }
    difference = found["arms"]["challenger"]["mean_score"] - found["arms"]["champion"]["mean_score"]
    assert 0.009 < difference < 0.0101


def test_a_good_shadow_is_promoted_and_its_figures_are_the_reason(trial: World) -> None:
    served = trial.predictions(200)
    trial.serve(served)
    assert shadow(trial, near(served)) == 204
    found = canary(trial)
    assert (found["mode"], found["share"], found["verdict"]) == ("shadow", 0.5, "promote")
    assert trial.reconcile()["canaries"] == 1
    with Session(trial.engine) as session:
        standing = find_standing(session, PIPELINE)
    assert (standing.champion and standing.champion.version, standing.challenger) == ("r2", None)
    (row,) = trial.rows("SELECT reason, by FROM promotions ORDER BY generation DESC LIMIT 1")
    assert (row.by, row.reason[:14]) == ("monitor", "shadow of r2: ")
    pointer = msgspec.json.decode(trial.bucket.read(pointer_path(PIPELINE)), type=Pointer)
    assert (pointer.version, pointer.shadow, pointer.challenger) == ("r2", None, None)


@pytest.mark.parametrize("promotion", ["canary", "manual", "auto"])
def test_a_shadow_that_a_person_began_is_left_for_the_person_to_promote(trial: World, promotion: str) -> None:
    change(trial, promotion)
    served = trial.predictions(200)
    trial.serve(served)
    shadow(trial, near(served))
    assert trial.reconcile()["canaries"] == 0
    assert canary(trial)["verdict"] == "promote"


def test_outcomes_decide_on_the_same_rows(trial: World) -> None:
    served = trial.predictions(400)
    trial.serve(served)
    shadow(trial, [msgspec.structs.replace(row, score=1 - row.score) for row in served])
    trial.observe(trial.outcomes(served))
    found = canary(trial)
    assert [found["arms"][arm]["labelled"] for arm in ("champion", "challenger")] == [400, 400]
    assert (found["verdict"], found["difference"]["high"] < 0) == ("rollback", True)
    assert trial.reconcile()["canaries"] == 1
    with Session(trial.engine) as session:
        standing = find_standing(session, PIPELINE)
    assert (standing.champion and standing.champion.version, standing.challenger) == ("r1", None)


def test_failures_of_a_shadow_roll_it_back_and_those_of_before_it_do_not_count(trial: World) -> None:
    shadow(trial, [], event_id="the-same", failures=12)
    shadow(trial, [], event_id="the-same", failures=12)
    assert canary(trial)["arms"]["challenger"]["failures"] == 12
    trial.write(text("UPDATE shadow_servings SET minute = minute - interval '5 minutes'"))
    assert canary(trial)["arms"]["challenger"]["failures"] == 0
    shadow(trial, [], failures=9)
    trial.reconcile()
    (row,) = trial.rows("SELECT reason FROM promotions ORDER BY generation DESC LIMIT 1")
    assert "failed to answer 9 of 9 rows" in row.reason


def test_a_canary_of_a_release_that_was_a_shadow_begins_anew(trial: World) -> None:
    served = trial.predictions(200)
    trial.serve(served)
    shadow(trial, near(served), failures=50)
    with Session(trial.engine) as session, session.begin():
        promote(session, PIPELINE, "r2", reason="test", by="test", share=0.3)
    trial.serve(trial.predictions(7), "r2")
    found = canary(trial)
    assert (found["mode"], found["arms"]["challenger"]["predictions"]) == ("canary", 7)
    assert found["arms"]["challenger"]["failures"] == 0


def test_a_shadow_without_evidence_in_its_time_is_rolled_back(trial: World) -> None:
    trial.write(text("UPDATE promotions SET created_at = now() - interval '61 minutes' WHERE generation = 2"))
    trial.serve(trial.predictions(400))
    assert trial.reconcile()["canaries"] == 1
    (row,) = trial.rows("SELECT reason FROM promotions ORDER BY generation DESC LIMIT 1")
    assert "not enough evidence after 60 minutes" in row.reason


def test_rows_without_an_entity_are_compared_too(trial: World) -> None:
    served = [msgspec.structs.replace(row, entity=None) for row in trial.predictions(30)]
    trial.serve(served)
    shadow(trial, near(served))
    assert canary(trial)["arms"]["challenger"]["predictions"] == 30


def test_the_recorded_sample_holds_no_shadow(trial: World) -> None:
    served = [msgspec.structs.replace(row, row={"parcel": row.entity}) for row in trial.predictions(20)]
    trial.serve(served)
    shadow(trial, near(trial.predictions(20)))
    trial.write(text("DELETE FROM promotions WHERE generation = 2"))
    assert trial.reconcile()["sampled"] == 1
    sample = msgspec.json.decode(trial.bucket.read(sample_path(PIPELINE, "r1")), type=Sample)
    assert {found.id for found in sample.predictions} == {row.id for row in served}
    assert trial.bucket.list(sample_path(PIPELINE, "r2")) == []


def test_old_shadows_are_forgotten(trial: World) -> None:
    rows = trial.predictions(2)
    shadow(trial, [msgspec.structs.replace(rows[0], served_at=rows[0].served_at - timedelta(days=32)), rows[1]])
    trial.write(text("UPDATE shadow_servings SET minute = minute - interval '32 days'"))
    trial.reconcile()
    assert (count(trial, "shadow_predictions"), count(trial, "shadow_servings")) == (1, 0)


def test_the_dashboard_tells_a_shadow_from_a_canary(trial: World) -> None:
    shown = trial.client.get("/").get_data(as_text=True)
    assert "; shadow of <span" in shown
    assert "<small>shadow, 50.0 %</small>" in shown
    challenger = trial.status()["challenger"]
    assert (challenger["version"], challenger["shadow"]) == ("r2", True)
