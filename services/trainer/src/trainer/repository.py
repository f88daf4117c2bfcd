"""Every query of the trainer."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import ColumnElement, and_, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from esteira.exceptions import LeaseLost
from esteira.leases import Lease, claim, held
from esteira.tables import datasets, ingestions, promotions, releases, training_runs
from trainer.rows import DatasetVersion, NewRelease, RunRequest, RunState, TrainingRun, UnregisteredRelease, WaitingRun

MAX_ATTEMPTS = 3
OUTAGE_PAUSE = timedelta(seconds=10)
UNFINISHED = ("requested", "running")


def lock_pipeline(session: Session, pipeline: str) -> None:
    """Makes everyone else who decides about runs of this pipeline wait until the transaction ends."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"training:{pipeline}", 0))))


def newest_dataset(session: Session, pipeline: str) -> DatasetVersion | None:
    """The dataset version with the highest number."""
    return _dataset(session, datasets.c.pipeline == pipeline)


def find_dataset(session: Session, pipeline: str, number: int) -> DatasetVersion | None:
    """One dataset version."""
    return _dataset(session, datasets.c.pipeline == pipeline, datasets.c.number == number)


def _dataset(session: Session, *conditions: ColumnElement[bool]) -> DatasetVersion | None:
    columns = [datasets.c[name] for name in DatasetVersion.__struct_fields__]
    query = select(*columns).where(*conditions).order_by(datasets.c.number.desc()).limit(1)
    row = session.execute(query).mappings().first()
    return DatasetVersion(**row) if row else None


def newest_raw_object(session: Session, pipeline: str, dataset_number: int) -> str | None:
    """The raw file behind a dataset version."""
    query = (
        select(ingestions.c.object)
        .join(datasets, datasets.c.ingestion_id == ingestions.c.id)
        .where(datasets.c.pipeline == pipeline, datasets.c.number == dataset_number)
    )
    return session.execute(query).scalar()


def has_unfinished_run(session: Session, pipeline: str) -> bool:
    """Whether a run of the pipeline waits or works."""
    query = select(training_runs.c.id).where(
        training_runs.c.pipeline == pipeline, training_runs.c.status.in_(UNFINISHED)
    )
    return session.execute(query.limit(1)).first() is not None


def has_run_on(session: Session, pipeline: str, dataset_number: int) -> bool:
    """Whether any run, finished or not, takes this dataset version."""
    query = select(training_runs.c.id).where(
        training_runs.c.pipeline == pipeline, training_runs.c.dataset_number == dataset_number
    )
    return session.execute(query.limit(1)).first() is not None


def add_run(session: Session, request: RunRequest) -> UUID | None:
    """Records the request under the next number; None where the same work was requested before.

    The caller holds `lock_pipeline`.
    """
    following = select(func.coalesce(func.max(training_runs.c.number), 0) + 1).where(
        training_runs.c.pipeline == request.pipeline
    )
    values = {"id": uuid4(), "number": following.scalar_subquery(), **msgspec.structs.asdict(request)}
    statement = insert(training_runs).values(values).on_conflict_do_nothing(index_elements=["pipeline", "request_key"])
    return session.execute(statement.returning(training_runs.c.id)).scalar()


def _has_no_job() -> ColumnElement[bool]:
    free = or_(training_runs.c.lease_until.is_(None), training_runs.c.lease_until < func.clock_timestamp())
    return and_(training_runs.c.status.in_(UNFINISHED), free)


def waiting_runs(session: Session, limit: int) -> list[WaitingRun]:
    """Runs without a job, those that were begun first."""
    columns = [training_runs.c[name] for name in WaitingRun.__struct_fields__]
    begun = (training_runs.c.status == "requested", training_runs.c.pipeline, training_runs.c.number)
    query = select(*columns).where(_has_no_job()).order_by(*begun).limit(limit)
    return [WaitingRun(**row) for row in session.execute(query).mappings()]


def claim_run(session: Session, run: WaitingRun, seconds: float) -> Lease | None:
    """Claims the run for a job that is about to start; None while another run of the pipeline has one."""
    lock_pipeline(session, run.pipeline)
    query = select(training_runs.c.id).where(
        training_runs.c.pipeline == run.pipeline,
        training_runs.c.id != run.id,
        training_runs.c.status.in_(UNFINISHED),
        training_runs.c.lease_until >= func.clock_timestamp(),
    )
    if session.execute(query.limit(1)).first() is not None:
        return None
    return claim(session, training_runs, run.id, seconds, training_runs.c.status.in_(UNFINISHED))


def move_to_newest_dataset(session: Session, run_id: UUID) -> None:
    """Gives a run that starts now the newest dataset version, unless another run has that one.

    Files that arrive together are so trained on once. A machine's request carries the dataset in its key, and the
    key moves along: no dataset version is trained on twice unless a person wants it. The caller holds `lock_pipeline`.
    """
    run = session.execute(select(training_runs).where(training_runs.c.id == run_id)).one()
    newest = newest_dataset(session, run.pipeline)
    if newest is None or newest.number == run.dataset_number or has_run_on(session, run.pipeline, newest.number):
        return
    of_machine = run.request_key.startswith("dataset:")
    key = dataset_key(newest) if of_machine else run.request_key
    moved = {"dataset_number": newest.number, "request_key": key}
    session.execute(update(training_runs).where(training_runs.c.id == run_id).values(moved))


def dataset_key(dataset: DatasetVersion) -> str:
    """The request key of machines, which ask once for a dataset version."""
    return f"dataset:{dataset.version}"


def give_up(session: Session, run: WaitingRun) -> bool:
    """Fails a run whose jobs ended `MAX_ATTEMPTS` times without a result, and shuts out a job that still lives."""
    verdict = f"{run.attempts} jobs ended without a result; the last one said: {run.verdict or 'nothing'}"
    values = {
        "status": "failed",
        "verdict": verdict,
        "fence": training_runs.c.fence + 1,
        "finished_at": func.clock_timestamp(),
    }
    statement = update(training_runs).where(
        training_runs.c.id == run.id, training_runs.c.attempts >= MAX_ATTEMPTS, _has_no_job()
    )
    return session.execute(statement.values(values).returning(training_runs.c.id)).first() is not None


def start_run(session: Session, lease: Lease) -> TrainingRun:
    """Marks the run as running and reads it.

    Raises:
        LeaseLost: it is another job's by now, or finished.
    """
    held(session, lease)
    until = func.clock_timestamp() + timedelta(seconds=lease.seconds)
    mine = and_(lease.is_mine(), training_runs.c.status.in_(UNFINISHED))
    columns = [training_runs.c[name] for name in TrainingRun.__struct_fields__]
    statement = update(training_runs).where(mine).values(status="running", lease_until=until).returning(*columns)
    row = session.execute(statement).mappings().first()
    if row is None:
        raise _finished(lease)
    return TrainingRun(**row)


def _finished(lease: Lease) -> Exception:
    return LeaseLost(f"{lease}: the run is finished already; there is nothing left to do")


def finish_run(session: Session, lease: Lease, values: Mapping[str, Any]) -> None:
    """Writes the run's end, by its owner alone; `values` has at least `status` and `verdict`.

    Raises:
        LeaseLost: it is another job's by now, or finished.
    """
    mine = and_(lease.is_mine(), training_runs.c.status == "running")
    ended = {**values, "finished_at": func.clock_timestamp(), "lease_until": None}
    statement = update(training_runs).where(mine).values(ended).returning(training_runs.c.id)
    if session.execute(statement).first() is None:
        lease.mark_lost()
        raise _finished(lease)


def record_attempt(session: Session, lease: Lease, error: str) -> None:
    """Keeps why an attempt ended without a result, and gives the run back for the next one."""
    mine = and_(lease.is_mine(), training_runs.c.status == "running")
    session.execute(update(training_runs).where(mine).values(verdict=error, lease_until=None))


def record_outage(session: Session, lease: Lease, error: str) -> None:
    """Keeps that something the job needs was away; not counted as an attempt, and tried again after a pause.

    Whoever could not start the job says so too: the run need not be running yet.
    """
    mine = and_(lease.is_mine(), training_runs.c.status.in_(UNFINISHED))
    pause = func.clock_timestamp() + OUTAGE_PAUSE
    values = {"verdict": error, "lease_until": pause, "attempts": training_runs.c.attempts - 1}
    session.execute(update(training_runs).where(mine).values(values))


def add_release(session: Session, release: NewRelease) -> None:
    """Records a release that is whole in the bucket."""
    session.execute(insert(releases).values(**msgspec.structs.asdict(release), approved=True))


def unregistered_releases(session: Session, limit: int) -> list[UnregisteredRelease]:
    """Releases whose version in MLflow's registry is not known, oldest first."""
    columns = [releases.c[name] for name in UnregisteredRelease.__struct_fields__]
    missing = and_(releases.c.mlflow_version.is_(None), releases.c.mlflow_run_id.is_not(None))
    query = select(*columns).where(missing).order_by(releases.c.created_at).limit(limit)
    return [UnregisteredRelease(**row) for row in session.execute(query).mappings()]


def set_mlflow_version(session: Session, pipeline: str, version: str, mlflow_version: str) -> None:
    """Remembers the registry's number of a release."""
    this = and_(releases.c.pipeline == pipeline, releases.c.version == version)
    session.execute(update(releases).where(this).values(mlflow_version=mlflow_version))


def find_mlflow_version(session: Session, pipeline: str, version: str) -> str | None:
    """The registry's number of a release."""
    this = and_(releases.c.pipeline == pipeline, releases.c.version == version)
    return session.execute(select(releases.c.mlflow_version).where(this)).scalar()


def find_run_state(session: Session, run_id: UUID) -> RunState | None:
    """How far a training run is."""
    columns = [training_runs.c[name] for name in RunState.__struct_fields__]
    row = session.execute(select(*columns).where(training_runs.c.id == run_id)).mappings().first()
    return RunState(**row) if row else None


def list_runs(session: Session, pipeline: str, limit: int) -> list[dict[str, Any]]:
    """The newest runs first."""
    hidden = {"pipeline", "lease_until", "fence", "traceparent", "request_key"}
    columns = [column for column in training_runs.c if column.name not in hidden]
    query = select(*columns).where(training_runs.c.pipeline == pipeline)
    rows = session.execute(query.order_by(training_runs.c.number.desc()).limit(limit)).mappings()
    return [dict(row) for row in rows]


def list_promotions(session: Session, pipeline: str, limit: int) -> list[dict[str, Any]]:
    """The newest promotions, canaries and shadows first, with the metrics of their releases."""
    of_release = and_(releases.c.pipeline == promotions.c.pipeline, releases.c.version == promotions.c.release_version)
    query = select(promotions, releases.c.metrics).join(releases, of_release).where(promotions.c.pipeline == pipeline)
    rows = session.execute(query.order_by(promotions.c.generation.desc()).limit(limit)).mappings()
    return [dict(row) for row in rows]


def is_reachable(session: Session) -> None:
    """Asks Postgres for a sign of life."""
    session.execute(text("SELECT 1"))
