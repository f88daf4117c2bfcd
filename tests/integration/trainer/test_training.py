"""From a dataset to a served release, with real jobs."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

import mlflow
import msgspec
import pandas as pd
import pytest
from mlflow import MlflowClient
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from esteira.bucket import Bucket
from esteira.dataset import Manifest
from esteira.events import DatasetPrepared, RetrainRequested
from esteira.exceptions import LeaseLost
from esteira.leases import Lease
from esteira.pushes import Delivery
from esteira.redaction import ColumnRule, Redaction
from esteira.release import Pointer, Release, pointer_path
from esteira.release_files import fetch_release
from esteira.runtime import ReleaseRuntime
from esteira.tables import outbox, promotions, releases, training_runs
from trainer import repository
from trainer.handlers import Trainer
from trainer.rows import RunRequest
from trainer.settle import Ending, settle

PIPELINE = "parcels"
PATIENCE = 120.0
RULES = "prediction_log: {columns: {carrier: {log: hashed}}}\n"


class Versions(Protocol):
    """Writes dataset versions as etl does."""

    def add(self, rows: int = 3000) -> Manifest: ...


def prepared(manifest: Manifest) -> DatasetPrepared:
    return DatasetPrepared(
        pipeline=PIPELINE,
        number=manifest.number,
        version=manifest.version,
        rows=manifest.rows,
        ingestion_id=manifest.parts[-1].ingestion_id,
    )


def delivery() -> Delivery:
    return Delivery(event_id=str(uuid4()), attributes={}, data=b"")


def asked(by: str) -> RetrainRequested:
    return RetrainRequested(pipeline=PIPELINE, reason="it drifts", requested_by=by)


def eventually(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def finished(trainer: Trainer, count: int = 1) -> list[dict[str, Any]]:
    def look() -> list[dict[str, Any]]:
        runs = trainer.runs(PIPELINE)
        return runs if len(runs) == count and all(run["finished_at"] for run in runs) else []

    runs: list[dict[str, Any]] = eventually(look)
    return runs


def mlflow_runs(uri: str) -> list[Any]:
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name(PIPELINE)
    return [] if experiment is None else list(client.search_runs([experiment.experiment_id]))


def of_run(uri: str, run_id: UUID) -> list[Any]:
    return [run for run in mlflow_runs(uri) if run.data.tags.get("esteira.training_run") == str(run_id)]


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")  # MLflow's own, when it is imported
def test_first_dataset_becomes_the_champion(
    trainer: Trainer, versions: Versions, bucket: Bucket, engine: Engine, mlflow_server: str, tmp_path: Any
) -> None:
    trainer.on_dataset_prepared(prepared(versions.add()), delivery())
    (run,) = finished(trainer)
    assert (run["status"], run["verdict"]) == ("promoted", "passed every gate")
    found = eventually(lambda: bucket.read_versioned(pointer_path(PIPELINE)))  # written after the ledger
    pointer = msgspec.json.decode(found[0], type=Pointer)
    runtime = ReleaseRuntime(fetch_release(bucket, pointer.path, pointer.sha256, tmp_path / "served"), pointer.sha256)
    assert len(runtime.release.example) == 5
    assert runtime.release.null_values == ("", "?")
    assert runtime.release.version == pointer.version == run["release_version"] == "1"
    eventually(lambda: all(tracked.info.status == "FINISHED" for tracked in of_run(mlflow_server, run["id"])))
    (tracked,) = of_run(mlflow_server, run["id"])
    client = MlflowClient(mlflow_server, mlflow_server)
    alias = eventually(lambda: _alias(client))
    assert alias.tags["sha256"] == pointer.sha256
    assert alias.run_id == tracked.info.run_id
    mlflow.set_tracking_uri(mlflow_server)
    loaded = mlflow.pyfunc.load_model(f"models:/{PIPELINE}@champion")
    scores = loaded.predict(pd.DataFrame(runtime.release.example))
    assert scores.tolist() == pytest.approx(runtime.release.example_scores, abs=1e-12)
    assert [row["generation"] for row in trainer.promoter.history(PIPELINE)] == [1]
    eventually(lambda: _sent(engine) == {"model-approved", "model-promoted"})


@pytest.mark.parametrize("mode", ["canary", "shadow"])
def test_a_pipeline_that_promotes_by_trial_begins_one_after_its_first_champion(
    mode: str, pipelines_dir: Path, versions: Versions, bucket: Bucket, request: pytest.FixtureRequest
) -> None:
    specification = pipelines_dir / PIPELINE / "pipeline.yaml"
    specification.write_text(specification.read_text() + f"promotion: {mode}\ncanary: {{share: 0.25}}\n{RULES}")
    trainer: Trainer = request.getfixturevalue("trainer")
    trainer.on_dataset_prepared(prepared(versions.add()), delivery())
    assert [run["status"] for run in finished(trainer)] == ["promoted"]
    versions.add()
    trainer.on_retrain_requested(asked("monitor"), delivery())
    assert [run["status"] for run in finished(trainer, 2)] == ["approved", "promoted"]
    rows = trainer.promoter.history(PIPELINE)
    assert [(row["release_version"], row["previous_version"], row["share"], row["shadow"]) for row in rows] == [
        ("2", "1", 0.25, mode == "shadow"),
        ("1", None, 1, False),
    ]
    eventually(lambda: (found := pointer_of(bucket)).tried is not None and found.tried.version == "2")
    found = pointer_of(bucket)
    assert (found.version, found.tried) == ("1", found.shadow if mode == "shadow" else found.challenger)
    release = msgspec.json.decode(bucket.read(f"{found.path}release.json"), type=Release)
    hashed = ColumnRule(log="hashed")
    derived = ("weight", "carrier", "hour", "fleet")  # two do not say of which table: the carrier may have chosen them
    assert release.redaction == Redaction(columns={"carrier": hashed}, features=dict.fromkeys(derived, hashed))


def pointer_of(bucket: Bucket) -> Pointer:
    return msgspec.json.decode(bucket.read(pointer_path(PIPELINE)), type=Pointer)


def _alias(client: MlflowClient) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(PIPELINE, "champion")
    except MlflowException:
        return None


def _sent(engine: Engine) -> set[str]:
    with Session(engine) as session:
        return set(session.scalars(select(outbox.c.topic).where(outbox.c.published_at.is_not(None))))


def test_two_requests_of_machines_for_one_dataset_are_one_run(trainer: Trainer, versions: Versions) -> None:
    versions.add()
    trainer.on_retrain_requested(asked("monitor"), delivery())
    trainer.on_retrain_requested(asked("schedule"), delivery())
    assert len(finished(trainer)) == 1


def test_too_few_rows_are_not_trained_on(trainer: Trainer, versions: Versions) -> None:
    trainer.on_dataset_prepared(prepared(versions.add(100)), delivery())
    assert trainer.runs(PIPELINE) == []


def test_datasets_that_arrive_before_the_job_starts_are_trained_on_once(
    trainer: Trainer, versions: Versions, engine: Engine
) -> None:
    versions.add()
    with Session(engine) as session, session.begin():
        first = repository.newest_dataset(session, PIPELINE)
        assert first is not None
        request = RunRequest(
            pipeline=PIPELINE,
            request_key=repository.dataset_key(first),
            reason="first dataset",
            requested_by="trainer",
            dataset_number=1,
        )
        repository.add_run(session, request)
    newest = versions.add()
    trainer.on_dataset_prepared(prepared(newest), delivery())
    (run,) = finished(trainer)
    assert (run["status"], run["dataset_number"]) == ("promoted", 2)
    trainer.on_retrain_requested(asked("monitor"), delivery())
    assert len(trainer.runs(PIPELINE)) == 1


def test_repeated_delivery_changes_nothing(trainer: Trainer, versions: Versions) -> None:
    versions.add()
    same = delivery()
    trainer.on_retrain_requested(asked("ana"), same)
    trainer.on_retrain_requested(asked("ana"), same)
    assert len(finished(trainer)) == 1


def test_challenger_is_held_against_the_champion(trainer: Trainer, versions: Versions) -> None:
    trainer.on_dataset_prepared(prepared(versions.add()), delivery())
    finished(trainer)
    versions.add()
    trainer.on_retrain_requested(asked("monitor"), delivery())
    newest, _ = finished(trainer, 2)
    assert newest["dataset_number"] == 2
    assert newest["status"] == "promoted", newest["verdict"]
    gates = {gate["name"]: gate for gate in newest["gates"]}
    assert "champion 1" in gates["champion"]["detail"]
    assert "worst of 3" in gates["slice carrier"]["detail"]


def test_killed_job_is_started_again_and_nothing_happens_twice(
    trainer: Trainer, versions: Versions, engine: Engine, mlflow_server: str
) -> None:
    trainer.on_dataset_prepared(prepared(versions.add()), delivery())
    run = trainer.runs(PIPELINE)[0]
    eventually(lambda: of_run(mlflow_server, run["id"]))
    _kill(run["id"])
    with Session(engine) as session, session.begin():
        session.execute(update(training_runs).values(lease_until=func.now()))
    eventually(lambda: trainer.reconcile()["launched"])
    (ended,) = finished(trainer)
    assert (ended["status"], ended["attempts"], ended["release_version"]) == ("promoted", 2, "1.2")
    with Session(engine) as session:
        assert len(session.execute(select(releases)).all()) == len(session.execute(select(promotions)).all()) == 1
    eventually(lambda: all(tracked.info.status != "RUNNING" for tracked in of_run(mlflow_server, run["id"])))
    states = sorted(tracked.info.status for tracked in of_run(mlflow_server, run["id"]))
    assert states == ["FINISHED", "KILLED"]


def test_outage_is_no_attempt_and_a_crash_is_one(engine: Engine, versions: Versions) -> None:
    versions.add()
    run_id = _run_claimed_twice(engine)
    mine = Lease(training_runs, run_id, 2, 20)
    with Session(engine) as session, session.begin():
        repository.start_run(session, mine)
        repository.record_outage(session, mine, "Unavailable: MLflow is away")
        row = session.execute(select(training_runs).where(training_runs.c.id == run_id)).one()
    assert (row.attempts, row.status, row.verdict) == (1, "running", "Unavailable: MLflow is away")
    assert row.lease_until is not None
    with Session(engine) as session, session.begin():
        repository.record_attempt(session, mine, "ValueError: no")
        row = session.execute(select(training_runs).where(training_runs.c.id == run_id)).one()
    assert (row.attempts, row.lease_until) == (1, None)


def _kill(run_id: UUID) -> None:
    found = subprocess.run(["pgrep", "-f", f"trainer.job --run {run_id}"], capture_output=True, text=True, check=True)
    for pid in found.stdout.split():
        os.kill(int(pid), signal.SIGKILL)


def test_former_owner_cannot_end_a_run(engine: Engine, versions: Versions) -> None:
    versions.add()
    run_id = _run_claimed_twice(engine)
    stale = Lease(training_runs, run_id, 1, 20)
    with Session(engine) as session, session.begin(), pytest.raises(LeaseLost):
        repository.start_run(session, stale)
    current = Lease(training_runs, run_id, 2, 20)
    with Session(engine) as session, session.begin():
        run = repository.start_run(session, current)
    ending = Ending(status="rejected", verdict="late", metrics={}, gates=[], mlflow_run_id="x")
    with pytest.raises(LeaseLost):
        settle(engine, stale, run, ending)
    with Session(engine) as session:
        assert session.execute(select(training_runs.c.status)).scalar() == "running"


def _run_claimed_twice(engine: Engine) -> UUID:
    with Session(engine) as session, session.begin():
        newest = repository.newest_dataset(session, PIPELINE)
        assert newest is not None
        request = RunRequest(
            pipeline=PIPELINE,
            request_key=repository.dataset_key(newest),
            reason="test",
            requested_by="monitor",
            dataset_number=newest.number,
        )
        run_id = repository.add_run(session, request)
    assert run_id is not None
    for _ in range(2):
        with Session(engine) as session, session.begin():
            (waiting,) = repository.waiting_runs(session, 10)
            assert repository.claim_run(session, waiting, 0.0) is not None
    return run_id
