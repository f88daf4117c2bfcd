"""What the monitor does when it is told something, or when the timer calls."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from esteira.events import ModelApproved, ModelPromoted, OutcomesObserved, Prediction, PredictionsServed
from esteira.exceptions import EsteiraError, NotFound, TransientError
from esteira.inbox import forget_received, is_first
from esteira.outbox import Relay, forget_published
from esteira.pipeline import LoadedPipeline, find_pipeline
from esteira.pushes import Delivery
from monitor import arms, repository, shadows
from monitor.canaries import Canaries
from monitor.judging import Judge
from monitor.partitions import Partitions
from monitor.profiles import ProfileStore, ReleaseRow, count_cells
from monitor.samples import SampleWriter
from monitor.tracking import Tracker
from monitor.windows import as_utc, window_at

logger = logging.getLogger(__name__)

Pipelines = dict[str, LoadedPipeline]

WINDOWS_PER_EVENT = 12
WINDOWS_PER_RECONCILE = 50
SECONDS_PER_RECONCILE = 20.0
SETTLE = timedelta(seconds=3)
"""The timer judges a window once nothing came into it for so long, or after `judging.PATIENCE`."""
SWEEP_SECONDS = 60.0
SWEEP_BACK = timedelta(days=1)
FORGET_AFTER = timedelta(days=8)
FORGET_SHADOWS_AFTER = timedelta(days=31)


class PredictionStore:
    """Stores predictions, each once, and counts those that were answered into the live histograms."""

    def __init__(self, engine: Engine, pipelines: Pipelines, profiles: ProfileStore, partitions: Partitions) -> None:
        self._engine = engine
        self._pipelines = pipelines
        self._profiles = profiles
        self._partitions = partitions

    def receive(self, event: PredictionsServed, delivery: Delivery) -> int:
        """Stores what the event brings; returns how many predictions were new.

        Raises:
            UnknownPipeline: there is no such pipeline.
            NotFound: there is no such release.
            Unavailable: Postgres does not answer, or the release's profile cannot be read.
        """
        pipeline = find_pipeline(self._pipelines, event.pipeline)
        release = self._release(event)
        rows = list({row.id: row for row in sorted(event.predictions, key=lambda row: row.id)}.values())
        if not event.shadow:
            self._partitions.ensure({as_utc(row.served_at).date() for row in rows})
        with Session(self._engine) as session, session.begin():
            if not is_first(session, repository.CONSUMER, delivery.event_id):
                return 0
            if event.shadow:
                new = len(shadows.store_shadows(session, pipeline.name, release.version, rows))
                shadows.count_shadows(session, event)
            else:
                new = self._store(session, pipeline, release, rows)
                arms.count_serving(session, event)
        facts = {"pipeline": event.pipeline, "model_version": event.model_version, "shadow": event.shadow}
        logger.info("predictions_stored", extra={**facts, "received": len(event.predictions), "stored": new})
        return new

    def _store(self, session: Session, pipeline: LoadedPipeline, release: ReleaseRow, rows: list[Prediction]) -> int:
        repository.lock_shared(session, pipeline.name)
        stored = repository.store_predictions(session, pipeline.name, release.version, rows)
        new = [row for row in rows if row.id in stored]
        if new:
            cells = count_cells(self._profiles.read(release), new, self._profiles.read_redaction(release))
            repository.add_counts(session, pipeline.name, release.version, cells)
            span = pipeline.spec.monitoring.window
            windows = Counter(window_at(as_utc(row.event_time), span) for row in new)
            repository.mark_windows(session, pipeline.name, windows)
        return len(new)

    def _release(self, event: PredictionsServed) -> ReleaseRow:
        with Session(self._engine) as session:
            release = repository.find_release(session, event.pipeline, event.model_version)
        if release is None:
            raise NotFound(
                f"pipeline {event.pipeline} has no release {event.model_version}; its predictions are dropped"
            )
        self._profiles.read(release)  # before the transaction: the bucket may be slow
        return release


class OutcomeObserver:
    """Takes outcomes, and has the windows judged that they tell of."""

    def __init__(self, engine: Engine, pipelines: Pipelines, judge: Judge) -> None:
        self._engine = engine
        self._pipelines = pipelines
        self._judge = judge

    def receive(self, event: OutcomesObserved, delivery: Delivery) -> int:
        """Stores outcomes that the event carries, marks the windows they touch, and judges them.

        What is not judged here, for it is too much or something is down, stays marked for the timer.

        Raises:
            UnknownPipeline: there is no such pipeline.
            Unavailable: Postgres does not answer.
        """
        find_pipeline(self._pipelines, event.pipeline)
        with Session(self._engine) as session, session.begin():
            if not is_first(session, repository.CONSUMER, delivery.event_id):
                return 0
            marked = _mark(session, event)
        logger.info("outcomes_observed", extra={"pipeline": event.pipeline, "rows": event.rows, "windows": marked})
        return self._judge_now(event.pipeline)

    def _judge_now(self, pipeline: str) -> int:
        try:
            return self._judge.judge_waiting([pipeline], timedelta(0), WINDOWS_PER_EVENT, SECONDS_PER_RECONCILE)
        except TransientError as error:
            logger.warning("windows not judged yet", extra={"pipeline": pipeline, "error": str(error)})
            return 0


def _mark(session: Session, event: OutcomesObserved) -> int:
    repository.lock_shared(session, event.pipeline)
    if event.outcomes:
        new = repository.store_outcomes(session, event.pipeline, event.source, event.outcomes)
        if len(new) < len(event.outcomes):
            facts = {"pipeline": event.pipeline, "known": len(event.outcomes) - len(new)}
            logger.info("outcomes_known_already", extra=facts)
        return repository.mark_predicted(session, event.pipeline, new) if new else 0
    if event.first_event_time is None or event.last_event_time is None:
        return repository.mark_by_source(session, event.pipeline, event.source)
    first, last = as_utc(event.first_event_time), as_utc(event.last_event_time)
    return repository.mark_touched(session, event.pipeline, first, last)


def model_approved(event: ModelApproved, _: Delivery) -> None:
    """Logs a release that passed its gates: the ledger itself is the trainer's."""
    logger.info("model_approved", extra={"pipeline": event.pipeline, "model_version": event.version, **event.metrics})


def model_promoted(event: ModelPromoted, _: Delivery) -> None:
    """Logs a promotion. Nothing is cached of the champion, who is read from the ledger at each judgement."""
    facts = {
        "pipeline": event.pipeline,
        "model_version": event.version,
        "previous": event.previous,
        "share": event.share,
        "shadow": event.shadow,
    }
    logger.info("model_promoted", extra={**facts, "generation": event.generation, "reason": event.reason})


class Reconciler:
    """Finds work by state: windows not judged, messages not sent, figures not tracked, samples behind."""

    def __init__(
        self,
        engine: Engine,
        pipelines: Pipelines,
        partitions: Partitions,
        judge: Judge,
        relay: Relay,
        tracker: Tracker,
        samples: SampleWriter,
        canaries: Canaries,
    ) -> None:
        self._engine = engine
        self._pipelines = pipelines
        self._partitions = partitions
        self._judge = judge
        self._relay = relay
        self._tracker = tracker
        self._samples = samples
        self._canaries = canaries
        self._swept = -SWEEP_SECONDS

    def run(self) -> dict[str, int]:
        """Does all that is due and returns how much it was; what fails is logged and does not hold up the rest."""
        return {
            "swept": self._attempt("sweep", self._sweep),
            "judged": self._attempt("judge", self._judge_windows),
            "canaries": self._attempt("canaries", self._canaries.decide),
            "published": self._attempt("publish", self._relay.flush),
            "tracked": self._attempt("track", self._tracker.track),
            "sampled": self._attempt("sample", self._samples.write),
        }

    def _attempt(self, task: str, work: Callable[[], int]) -> int:
        try:
            return work()
        except EsteiraError as error:
            logger.warning("task failed", extra={"task": task, "error": str(error)})
        except Exception:
            logger.exception("task failed unexpectedly", extra={"task": task})
        return 0

    def _judge_windows(self) -> int:
        names: Sequence[str] = sorted(self._pipelines)
        return self._judge.judge_waiting(names, SETTLE, WINDOWS_PER_RECONCILE, SECONDS_PER_RECONCILE)

    def _sweep(self) -> int:
        marked = 0
        due = time.monotonic() - self._swept >= SWEEP_SECONDS
        for name, pipeline in self._pipelines.items():
            with Session(self._engine) as session, session.begin():
                marked += _mark_newer_data(session, name)
                if due:
                    since = datetime.now(UTC) - SWEEP_BACK
                    marked += repository.mark_unseen_outcomes(session, name, pipeline.spec.monitoring.window, since)
        if due:
            self._partitions.prepare()
            self._forget()
            self._swept = time.monotonic()
        return marked

    def _forget(self) -> None:
        with Session(self._engine) as session, session.begin():
            forget_received(session, FORGET_AFTER)
            forget_published(session, FORGET_AFTER)
            arms.forget_servings(session, FORGET_AFTER)
            shadows.forget_shadows(session, FORGET_SHADOWS_AFTER)


def _mark_newer_data(session: Session, pipeline: str) -> int:
    champion = repository.find_champion(session, pipeline)
    newest = repository.newest_dataset(session, pipeline)
    if champion is None or newest is None:
        return 0
    return repository.mark_newer_data(session, pipeline, champion.version, newest.number)
