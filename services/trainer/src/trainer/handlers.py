"""What the trainer does when it is told something: it records what is to be trained, and starts jobs."""

import logging
from typing import Any
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from esteira.events import DatasetPrepared, RetrainRequested
from esteira.exceptions import EsteiraError, NotEnoughData, TransientError
from esteira.inbox import is_first
from esteira.leases import Lease
from esteira.logs import current_trace
from esteira.outbox import Relay
from esteira.pipeline import LoadedPipeline, find_pipeline
from esteira.promotions import find_champion
from esteira.pushes import Delivery
from trainer import repository
from trainer.dispatch import Dispatcher
from trainer.launcher import Launcher
from trainer.projections import Projections
from trainer.promoter import Promoter
from trainer.repository import MAX_ATTEMPTS
from trainer.rows import DatasetVersion, RunRequest, WaitingRun

logger = logging.getLogger(__name__)

CONSUMER = "trainer"
MACHINES = frozenset({"monitor", "schedule", "trainer"})
RUNS_AT_ONCE = 20
LISTED = 100


class Trainer:
    """Decides what is trained when; the training itself is the job's."""

    def __init__(
        self,
        engine: Engine,
        pipelines: dict[str, LoadedPipeline],
        launcher: Launcher,
        relay: Relay,
        projections: Projections,
        lease_seconds: float,
        dispatcher: Dispatcher | None = None,
    ) -> None:
        self._engine = engine
        self._pipelines = pipelines
        self._launcher = launcher
        self._relay = relay
        self._projections = projections
        self._lease_seconds = lease_seconds
        self._dispatcher = dispatcher
        self.promoter = Promoter(engine, pipelines, relay, projections)

    def on_dataset_prepared(self, event: DatasetPrepared, delivery: Delivery) -> None:
        """Requests the first training of a pipeline; later ones are the monitor's to ask for."""
        pipeline = find_pipeline(self._pipelines, event.pipeline)
        with Session(self._engine) as session, session.begin():
            if not is_first(session, CONSUMER, delivery.event_id):
                return
            self._request_first(session, pipeline)
        self._launch_waiting()

    def on_retrain_requested(self, event: RetrainRequested, delivery: Delivery) -> None:
        """Requests a training on the newest dataset version: once for machines, at every wish for people."""
        pipeline = find_pipeline(self._pipelines, event.pipeline)
        with Session(self._engine) as session, session.begin():
            if not is_first(session, CONSUMER, delivery.event_id):
                return
            self._request_again(session, pipeline, event, delivery.event_id)
        self._launch_waiting()

    def reconcile(self) -> dict[str, int]:
        """Finds by state what an event or a job left undone; gives what was done, by kind."""
        return {
            "requested": self._request_missing(),
            "given_up": self._give_up(),
            "launched": self._launch_waiting(),
            **self._projections.repair(sorted(self._pipelines)),
            "published": self._relay.flush(),
            "dispatched": self._dispatcher.send_waiting() if self._dispatcher else 0,
        }

    def runs(self, pipeline: str) -> list[dict[str, Any]]:
        """The newest training runs."""
        find_pipeline(self._pipelines, pipeline)
        with Session(self._engine) as session:
            return repository.list_runs(session, pipeline, LISTED)

    def check_ready(self) -> None:
        """Raises `Unavailable` while Postgres does not answer."""
        with Session(self._engine) as session:
            repository.is_reachable(session)

    def close(self) -> None:
        """Gives the connections back; jobs live on."""
        self._engine.dispose()

    def _request_first(self, session: Session, pipeline: LoadedPipeline) -> UUID | None:
        """Requests a run where the pipeline has no champion and nobody is about to make one."""
        repository.lock_pipeline(session, pipeline.name)
        newest = repository.newest_dataset(session, pipeline.name)
        if newest is None or find_champion(session, pipeline.name) is not None:
            return None
        if repository.has_unfinished_run(session, pipeline.name):
            return None
        if repository.has_run_on(session, pipeline.name, newest.number) or not _is_enough(pipeline, newest):
            return None
        return self._add(session, _machine_request(newest, "first dataset", "trainer"))

    def _request_again(self, session: Session, pipeline: LoadedPipeline, event: RetrainRequested, ce_id: str) -> None:
        repository.lock_pipeline(session, pipeline.name)
        newest = repository.newest_dataset(session, pipeline.name)
        if newest is None:
            raise NotEnoughData(f"pipeline {pipeline.name} has no dataset yet; upload data to raw/{pipeline.name}/")
        if not _is_enough(pipeline, newest):
            return
        request = _machine_request(newest, event.reason, event.requested_by)
        if event.requested_by not in MACHINES:
            request = _person_request(newest, event, ce_id)
        self._add(session, request)

    @staticmethod
    def _add(session: Session, request: RunRequest) -> UUID | None:
        run_id = repository.add_run(session, request)
        facts = {"pipeline": request.pipeline, "request_key": request.request_key, "reason": request.reason}
        if run_id is None:
            logger.info("training was requested before", extra=facts)
        else:
            logger.info("training requested", extra={**facts, "run_id": str(run_id)})
        return run_id

    def _request_missing(self) -> int:
        """First trainings whose event was lost, or whose dataset arrived while another run was failing."""
        requested = 0
        for pipeline in self._pipelines.values():
            with Session(self._engine) as session, session.begin():
                requested += self._request_first(session, pipeline) is not None
        return requested

    def _give_up(self) -> int:
        with Session(self._engine) as session, session.begin():
            spent = [run for run in self._waiting(session) if run.attempts >= MAX_ATTEMPTS]
            given_up = [run for run in spent if repository.give_up(session, run)]
        for run in given_up:
            logger.error("training failed", extra={"run_id": str(run.id), "attempts": run.attempts})
        return len(given_up)

    def _launch_waiting(self) -> int:
        with Session(self._engine) as session:
            waiting = [run for run in self._waiting(session) if run.attempts < MAX_ATTEMPTS]
        return sum(self._launch(run) for run in waiting)

    @staticmethod
    def _waiting(session: Session) -> list[WaitingRun]:
        return repository.waiting_runs(session, RUNS_AT_ONCE)

    def _launch(self, run: WaitingRun) -> bool:
        """Claims the run and starts its job; a start that fails is no attempt, and reconcile tries again."""
        lease = self._claim(run)
        if lease is None:
            return False
        try:
            self._launcher.launch(run.id, lease.fence)
        except EsteiraError as error:
            level = logging.WARNING if isinstance(error, TransientError) else logging.ERROR
            logger.log(level, "training job not started", extra={"run_id": str(run.id), "error": str(error)})
            self._hand_back(lease, error)
            return False
        return True

    def _hand_back(self, lease: Lease, error: EsteiraError) -> None:
        with Session(self._engine) as session, session.begin():
            repository.record_outage(session, lease, f"the job was not started: {error}")

    def _claim(self, run: WaitingRun) -> Lease | None:
        with Session(self._engine) as session, session.begin():
            lease = repository.claim_run(session, run, self._lease_seconds)
            if lease is not None:
                repository.move_to_newest_dataset(session, run.id)
        return lease


def _is_enough(pipeline: LoadedPipeline, dataset: DatasetVersion) -> bool:
    needed = pipeline.spec.training.min_rows
    if dataset.labelled < needed:
        facts = {"pipeline": pipeline.name, "dataset": dataset.number, "labelled": dataset.labelled, "needed": needed}
        logger.warning("too few labelled rows to train", extra=facts)
    return dataset.labelled >= needed


def _machine_request(dataset: DatasetVersion, reason: str, requested_by: str) -> RunRequest:
    return RunRequest(
        pipeline=dataset.pipeline,
        request_key=repository.dataset_key(dataset),
        reason=reason,
        requested_by=requested_by,
        dataset_number=dataset.number,
        traceparent=current_trace(),
    )


def _person_request(dataset: DatasetVersion, event: RetrainRequested, ce_id: str) -> RunRequest:
    return RunRequest(
        pipeline=dataset.pipeline,
        request_key=f"event:{ce_id}",
        reason=event.reason,
        requested_by=event.requested_by,
        dataset_number=dataset.number,
        traceparent=current_trace(),
    )
