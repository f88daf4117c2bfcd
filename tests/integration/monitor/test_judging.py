"""Windows are judged by what is stored, whatever order it came in, and retraining is requested once."""

from datetime import timedelta
from uuid import uuid4

from sqlalchemy import insert, text

from esteira.events import OutcomesObserved
from esteira.tables import training_runs

from .conftest import DAY, PIPELINE, World


def with_news(world: World) -> None:
    """A dataset version with enough new rows."""
    world.dataset(2, 2000)


def run(world: World, status: str, dataset: int, number: int = 1) -> None:
    ended = text("now()") if status not in ("requested", "running") else None
    row = {"id": uuid4(), "pipeline": PIPELINE, "number": number, "request_key": f"k{number}", "status": status}
    row |= {"reason": "test", "requested_by": "test", "dataset_number": dataset, "finished_at": ended}
    world.write(insert(training_runs).values(**row))


def degraded(world: World, rows: int = 400) -> None:
    """A day whose labels have nothing to do with the scores."""
    predictions = world.predictions(rows)
    world.serve(predictions)
    world.observe(world.outcomes(predictions, informative=False))


def test_a_window_in_order_says_so_with_figures(world: World) -> None:
    world.write(text("""UPDATE releases SET metrics = '{"roc_auc": 0.66}'"""))
    predictions = world.predictions(600)
    world.serve(predictions)
    world.observe(world.outcomes(predictions))
    (window,) = world.windows()
    assert (window["requests"], window["labelled"], window["decision"]) == (600, 600, "not-needed")
    assert f"AUC {window['auc']:.3f} ({window['auc_low']:.3f} to {window['auc_high']:.3f})" in window["reason"]
    assert window["max_psi"] < 0.1
    assert world.requests() == 0


def test_outcomes_may_come_before_predictions(world: World) -> None:
    predictions = world.predictions(300)
    world.observe(world.outcomes(predictions))
    world.serve(predictions)
    world.settle()
    assert world.reconcile()["judged"] == 1
    assert world.windows()[0]["labelled"] == 300


def test_late_outcomes_have_the_window_judged_again(world: World) -> None:
    predictions = world.predictions(300)
    outcomes = world.outcomes(predictions)
    world.serve(predictions)
    world.observe(outcomes[:150])
    assert world.windows()[0]["labelled"] == 150
    world.observe(outcomes[150:])
    assert world.windows()[0]["labelled"] == 300


def test_outcomes_of_files_have_the_windows_judged_that_they_touch(world: World) -> None:
    days = [DAY, DAY + timedelta(days=1), DAY + timedelta(days=2)]
    predictions = [world.predictions(150, day) for day in days]
    for batch in predictions:
        world.serve(batch)
    world.settle()
    world.reconcile()
    insert_outcomes = "INSERT INTO outcomes VALUES ('parcels', :entity, 1, :time, 'ingestion:1')"
    for row in predictions[0] + predictions[1]:
        world.write(text(insert_outcomes).bindparams(entity=row.entity, time=row.event_time))
    last = days[1] + timedelta(hours=23)
    event = OutcomesObserved(
        pipeline=PIPELINE, source="ingestion:1", rows=300, first_event_time=DAY, last_event_time=last
    )
    assert world.push(event) == 204
    assert [window["labelled"] for window in world.windows()] == [150, 150, 0]


def test_outcomes_without_times_find_their_windows_by_entity(world: World) -> None:
    predictions = world.predictions(120)
    world.serve(predictions)
    world.settle()
    world.reconcile()
    for row in predictions:
        statement = text("INSERT INTO outcomes VALUES ('parcels', :entity, 1, NULL, 'ingestion:2')")
        world.write(statement.bindparams(entity=row.entity))
    world.push(OutcomesObserved(pipeline=PIPELINE, source="ingestion:2", rows=120))
    assert world.windows()[0]["labelled"] == 120


def test_outcomes_whose_event_was_lost_are_found_by_the_timer(world: World) -> None:
    predictions = world.predictions(120)
    world.serve(predictions)
    world.settle()
    world.reconcile()
    for row in predictions:
        statement = text("INSERT INTO outcomes VALUES ('parcels', :entity, 1, :time, 'ingestion:3')")
        world.write(statement.bindparams(entity=row.entity, time=row.event_time))
    world.start()
    world.reconcile()
    world.settle()
    world.reconcile()
    assert world.windows()[0]["labelled"] == 120


def test_a_window_in_flux_is_not_judged(world: World) -> None:
    world.serve(world.predictions(100))
    assert world.reconcile()["judged"] == 0
    world.settle()
    assert [world.reconcile()["judged"] for _ in range(2)] == [1, 0]


def test_evidence_requests_retraining_once(world: World) -> None:
    with_news(world)
    degraded(world)
    assert (world.windows()[0]["decision"], world.requests()) == ("requested", 1)
    assert [message.topic for message in world.mailbox.messages] == ["retrain-requested"]
    degraded(world)
    world.settle()
    world.reconcile()
    assert (world.windows()[0]["labelled"], world.requests()) == (800, 1)
    assert world.windows()[0]["decision"] == "requested"


def test_another_window_does_not_request_the_same_training_again(world: World) -> None:
    with_news(world)
    degraded(world)
    predictions = world.predictions(400, DAY + timedelta(days=1))
    world.serve(predictions)
    world.observe(world.outcomes(predictions, informative=False))
    assert [window["decision"] for window in world.windows()] == ["requested", "not-yet"]
    assert world.requests() == 1


def test_without_new_rows_retraining_waits_until_there_are(world: World) -> None:
    degraded(world)
    assert world.windows()[0]["decision"] == "not-yet"
    with_news(world)
    world.reconcile()
    world.settle()
    world.reconcile()
    assert (world.windows()[0]["decision"], world.requests()) == ("requested", 1)


def test_an_unfinished_run_is_waited_for_and_its_end_told(world: World) -> None:
    with_news(world)
    run(world, "running", dataset=2)
    degraded(world)
    assert "training run 1 is not finished" in world.windows()[0]["reason"]
    world.write(text("UPDATE training_runs SET status = 'rejected', verdict = 'worse', finished_at = now()"))
    world.reconcile()
    world.settle()
    world.reconcile()
    (window,) = world.windows()
    assert "ended as rejected (worse)" in window["reason"]
    assert (window["decision"], world.requests()) == ("not-yet", 0)
    assert world.reconcile()["swept"] == 0


def test_windows_of_a_former_champion_ask_for_nothing(world: World) -> None:
    with_news(world)
    predictions = world.predictions(400)
    world.serve(predictions)
    world.release("r2", dataset=2)
    world.promote("r2", generation=2)
    world.observe(world.outcomes(predictions, informative=False))
    (window,) = world.windows()
    assert (window["model_version"], window["labelled"], window["decision"]) == ("r1", 400, None)
    assert world.requests() == 0


def test_a_request_that_could_not_be_published_goes_out_later(world: World) -> None:
    with_news(world)
    world.mailbox.away = True
    degraded(world)
    assert (world.requests(), world.mailbox.messages) == (1, [])
    world.mailbox.away = False
    world.write(text("UPDATE outbox SET due_at = now()"))
    world.start()
    assert world.reconcile()["published"] == 1
    assert [message.topic for message in world.mailbox.messages] == ["retrain-requested"]


def test_too_few_outcomes_decide_nothing(world: World) -> None:
    with_news(world)
    degraded(world, rows=60)
    assert world.windows()[0]["decision"] == "insufficient"
    assert "60 predictions have their outcome, 100 are needed" in world.windows()[0]["reason"]
