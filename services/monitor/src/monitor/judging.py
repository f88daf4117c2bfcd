"""Judging windows: measure every model version that served in one, decide about the champion, record both."""

import logging
import time
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from esteira.events import RetrainRequested
from esteira.exceptions import TransientError
from esteira.outbox import Relay, enqueue
from esteira.pipeline import LoadedPipeline
from monitor import repository
from monitor.decision import Decision, Evidence, Training, decide
from monitor.measures import MAIN_METRIC, RELEASED_METRIC, Check, Labelled, Verdict, measure_drift, measure_performance
from monitor.performance import Estimate
from monitor.profiles import ProfileStore, ReleaseRow
from monitor.windows import Window

logger = logging.getLogger(__name__)

SOURCE = "monitor"
PATIENCE = timedelta(seconds=30)
"""A window is judged, however much is still coming, once it has waited for so long."""
_VERDICTS: Mapping[str, Verdict] = {
    "requested": "alarm",
    "not-yet": "warning",
    "not-needed": "ok",
    "insufficient": "insufficient",
}


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What a window showed."""

    pipeline: str
    window: Window
    checks: dict[str, list[Check]]
    """By model version."""
    champion: str | None
    decision: Decision | None
    """None where the champion made no prediction in this window, or retraining was requested before."""


class Judge:
    """Judges windows, one transaction each, one judge for a pipeline at a time."""

    def __init__(
        self, engine: Engine, pipelines: Mapping[str, LoadedPipeline], profiles: ProfileStore, relay: Relay
    ) -> None:
        self._engine = engine
        self._pipelines = pipelines
        self._profiles = profiles
        self._relay = relay

    def judge_waiting(self, names: Collection[str], settle: timedelta, most: int, seconds: float) -> int:
        """Judges windows that wait, the oldest first, until `most` are done or `seconds` are over; returns how many.

        Raises:
            Unavailable: Postgres does not answer.
        """
        with Session(self._engine) as session:
            waiting = repository.waiting_windows(session, names, settle, PATIENCE, most)
        end, judged = time.monotonic() + seconds, 0
        for pipeline, window in waiting:
            if time.monotonic() > end:
                break
            judged += self._judge_if_possible(pipeline, window)
        return judged

    def _judge_if_possible(self, pipeline: str, window: Window) -> bool:
        """One window that cannot be judged stays marked and does not hold up the others."""
        try:
            return self.judge(pipeline, window) is not None
        except TransientError as error:
            facts = {"pipeline": pipeline, "window_start": window.start.isoformat(), "error": str(error)}
            logger.warning("window not judged yet", extra=facts)
        except Exception:
            facts = {"pipeline": pipeline, "window_start": window.start.isoformat()}
            logger.exception("window not judged", extra=facts)
        return False

    def judge(self, pipeline: str, window: Window) -> Judgement | None:
        """Judges one window if it waits to be; None where another worker did so meanwhile."""
        loaded = self._pipelines[pipeline]
        self._fetch_profiles(pipeline, window)
        with Session(self._engine) as session, session.begin():
            repository.lock_alone(session, pipeline)
            if not repository.take_window(session, pipeline, window):
                return None
            judgement = self._measure(session, loaded, window)
            self._record(session, judgement)
        _log(judgement)
        if judgement.decision and judgement.decision.decision == "requested":
            self._relay.flush()
        return judgement

    def _fetch_profiles(self, pipeline: str, window: Window) -> None:
        """Before the lock, for the bucket may be slow."""
        with Session(self._engine) as session:
            versions = repository.requests_by_version(session, pipeline, window)
            found = [repository.find_release(session, pipeline, version) for version in versions]
        for release in filter(None, found):
            self._profiles.read(release)

    def _measure(self, session: Session, pipeline: LoadedPipeline, window: Window) -> Judgement:
        requests = repository.requests_by_version(session, pipeline.name, window)
        labelled = repository.labelled_by_version(session, pipeline.name, window)
        champion = repository.find_champion(session, pipeline.name)
        checks = {
            version: self._measure_version(session, pipeline, window, version, count, labelled.get(version))
            for version, count in requests.items()
        }
        decision = None
        if champion is not None and champion.version in checks:
            decision = _decide(session, pipeline, window, champion, checks[champion.version])
        return Judgement(
            pipeline=pipeline.name,
            window=window,
            checks=checks,
            champion=champion.version if champion else None,
            decision=decision,
        )

    def _measure_version(
        self,
        session: Session,
        pipeline: LoadedPipeline,
        window: Window,
        version: str,
        requests: int,
        labelled: Labelled | None,
    ) -> list[Check]:
        spec = pipeline.spec
        checks = [
            Check(name="requests", value=float(requests)),
            Check(name="labelled", value=float(len(labelled) if labelled else 0)),
        ]
        release = repository.find_release(session, pipeline.name, version)
        if release is None:
            return checks
        counts = repository.feature_counts(session, pipeline.name, version, window)
        redaction = self._profiles.read_redaction(release)
        checks += measure_drift(self._profiles.read(release), counts, spec.monitoring, redaction)
        if labelled:
            checks += measure_performance(spec.task, labelled, release.metrics, spec.monitoring, spec.retraining)
        return checks

    def _record(self, session: Session, judgement: Judgement) -> None:
        for version, checks in judgement.checks.items():
            repository.save_checks(session, judgement.pipeline, judgement.window, version, checks)
        decision, champion = judgement.decision, judgement.champion
        if decision is None or champion is None:
            return
        repository.save_checks(session, judgement.pipeline, judgement.window, champion, [_check(decision)])
        if decision.decision == "requested":
            window = {"window_start": judgement.window.start, "window_end": judgement.window.end}
            request = RetrainRequested(
                pipeline=judgement.pipeline,
                reason=decision.reason,
                requested_by=SOURCE,
                evidence={**window, "champion": champion, **decision.evidence},
            )
            enqueue(session, request, SOURCE)


def _decide(
    session: Session, pipeline: LoadedPipeline, window: Window, champion: ReleaseRow, checks: list[Check]
) -> Decision | None:
    """Once requested stays requested: later rows of the same window ask for nothing new."""
    if repository.find_decision(session, pipeline.name, window, champion.version) == "requested":
        return None
    spec = pipeline.spec
    evidence = _evidence(spec.task, champion, {check.name: check for check in checks if not check.subject})
    return decide(evidence, _training(session, pipeline.name, champion), spec.monitoring, spec.retraining)


def _evidence(task: str, champion: ReleaseRow, checks: Mapping[str, Check]) -> Evidence:
    metric = MAIN_METRIC[task]
    return Evidence(
        metric=metric,
        labelled=int(checks["labelled"].value or 0),
        performance=_estimate(checks.get(metric)),
        released=champion.metrics.get(RELEASED_METRIC[metric]),
        score_bias=_estimate(checks.get("score_bias")),
    )


def _estimate(check: Check | None) -> Estimate | None:
    if check is None or check.value is None:
        return None
    return Estimate(check.value, check.details["low"], check.details["high"])


def _training(session: Session, pipeline: str, champion: ReleaseRow) -> Training:
    newest = repository.newest_dataset(session, pipeline)
    number = newest.number if newest else champion.dataset_number
    run = repository.blocking_run(session, pipeline, number)
    return Training(
        dataset_number=number,
        dataset_rows=newest.labelled if newest else 0,
        champion_dataset_rows=repository.labelled_rows(session, pipeline, champion.dataset_number),
        run_number=run.number if run else None,
        run_status=run.status if run else None,
        run_reason=run.verdict if run else None,
        requested_for=repository.requested_dataset(session, pipeline, champion.version),
    )


def _check(decision: Decision) -> Check:
    verdict = _VERDICTS[decision.decision]
    return Check(name=repository.RETRAINING, verdict=verdict, details=msgspec.to_builtins(decision))


def _log(judgement: Judgement) -> None:
    window = {"window_start": judgement.window.start.isoformat(), "window_end": judgement.window.end.isoformat()}
    for version, checks in judgement.checks.items():
        head = {"pipeline": judgement.pipeline, **window, "model_version": version}
        figures = {check.name: check.value for check in checks if not check.subject and check.value is not None}
        decided = _decided(judgement.decision) if version == judgement.champion else {}
        logger.info("window_judged", extra={**head, **figures, **decided})
        for check in checks:
            if check.verdict == "alarm" and "psi" in check.name:
                facts = {"measure": check.name, "feature": check.subject, "value": check.value, **check.details}
                logger.warning("drift_alarm", extra={**head, **facts, "threshold": check.threshold})
    decision = judgement.decision
    if decision is not None and decision.decision == "requested":
        facts = {"pipeline": judgement.pipeline, "champion": judgement.champion, "reason": decision.reason}
        logger.warning("retrain_requested", extra={**facts, **window})


def _decided(decision: Decision | None) -> dict[str, Any]:
    return {"decision": decision.decision, "reason": decision.reason} if decision else {}
