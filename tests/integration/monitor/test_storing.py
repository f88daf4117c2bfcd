"""Predictions and outcomes are stored exactly once, and counted exactly."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sqlalchemy import text

from monitor.profiles import count_cells

from .conftest import DAY, PIPELINE, World, ids


def stored_cells(world: World) -> dict[tuple[datetime, int, int], int]:
    rows = world.rows("SELECT hour, feature, bin, count FROM profiles")
    return {(row.hour.astimezone(UTC), row.feature, row.bin): row.count for row in rows}


def stored_ids(world: World) -> list[object]:
    return [row.id for row in world.rows("SELECT id FROM predictions")]


def test_predictions_are_stored_with_their_features(world: World) -> None:
    (prediction,) = world.predictions(1)
    assert world.serve([prediction]) == 204
    (row,) = world.rows("SELECT * FROM predictions")
    assert (row.id, row.entity, row.score) == (prediction.id, prediction.entity, prediction.score)
    assert (row.event_time, row.features) == (prediction.event_time, prediction.features)


def test_an_event_that_comes_twice_is_stored_once(world: World) -> None:
    batch = world.predictions(40)
    assert [world.serve(batch, event_id="e-1") for _ in range(2)] == [204, 204]
    assert sorted(map(str, stored_ids(world))) == sorted(map(str, ids(batch)))


def test_counts_are_exact_when_batches_overlap_and_come_out_of_order(world: World) -> None:
    rows = world.predictions(90)
    for batch in (rows[30:90], rows[:60], rows[60:] + rows[60:], rows[::-1]):
        assert world.serve(batch) == 204
    assert set(stored_ids(world)) == ids(rows)
    assert len(stored_ids(world)) == len(rows)
    profile = world._profile()
    assert stored_cells(world) == count_cells(profile, rows)
    assert world.status()["predictions"] == len(rows)


def test_counts_are_exact_when_overlapping_batches_come_at_once(world: World) -> None:
    rows = world.predictions(200)
    batches = [rows[:120], rows[80:], rows[::-1], rows[50:150]]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(world.serve, batches))
    assert answers == [204] * 4
    assert len(stored_ids(world)) == len(rows)
    assert stored_cells(world) == count_cells(world._profile(), rows)


def test_each_day_gets_its_partition_and_odd_days_the_default_one(world: World) -> None:
    today, old = world.predictions(2)
    old = msgspec.structs.replace(old, served_at=DAY - timedelta(days=900))
    assert world.serve([today, old]) == 204
    tables = {row.id: row.part for row in world.rows("SELECT id, tableoid::regclass::text AS part FROM predictions")}
    assert tables == {today.id: f"predictions_{datetime.now(UTC):%Y%m%d}", old.id: "predictions_default"}


def test_a_day_whose_rows_are_in_the_default_partition_stays_there(world: World) -> None:
    first, second = world.predictions(2)
    values = "current_date, gen_random_uuid(), 'parcels', 'r1', 'x', now(), now(), .5, '[]'"
    world.write(text(f"INSERT INTO predictions SELECT {values}"))
    assert [world.serve([first]), world.serve([second])] == [204, 204]
    parts = world.rows("SELECT DISTINCT tableoid::regclass::text AS part FROM predictions")
    assert [row.part for row in parts] == ["predictions_default"]


@pytest.mark.parametrize("version", ["unknown"])
def test_predictions_of_an_unknown_release_are_refused_for_good(world: World, version: str) -> None:
    assert world.serve(world.predictions(1), version=version) == 204
    assert stored_ids(world) == []


def test_predictions_whose_profile_is_missing_come_again(world: World) -> None:
    row = "UPDATE releases SET path = 'releases/elsewhere/' WHERE version = 'r1'"
    world.write(text(row))
    assert world.serve(world.predictions(1)) == 503
    assert stored_ids(world) == []


def test_an_entity_keeps_its_first_outcome(world: World) -> None:
    (outcome,) = world.outcomes(world.predictions(1))
    world.observe([outcome])
    world.observe([msgspec.structs.replace(outcome, label=1 - outcome.label)])
    (row,) = world.rows(f"SELECT label FROM outcomes WHERE pipeline = '{PIPELINE}'")
    assert row.label == outcome.label
