"""Watches the canaries and shadows that run: reads both arms, and ends one whose verdict is clear.

One that does harm, or shows nothing in its time, is rolled back whoever began it. One that does well is promoted where
`promotion: canary`, or `shadow`, says so; elsewhere whoever began it promotes it. Each is one row of the ledger,
appended by compare-and-set: where a person was quicker, the person's row stands.
"""

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from esteira.bucket import Bucket
from esteira.exceptions import Conflict, EsteiraError
from esteira.pipeline import LoadedPipeline, find_pipeline
from esteira.promotions import PromotedRelease, Standing, find_standing, promote, rollback, write_pointer
from monitor.arms import read_arm
from monitor.canary import CanaryReport, judge_canary, judge_shadow
from monitor.shadows import read_arms
from monitor.windows import as_utc

logger = logging.getLogger(__name__)

BY = "monitor"
SECONDS_BETWEEN = 5.0
MAX_REASON = 500


class Canaries:
    """Judges canaries and shadows, and acts on what it finds."""

    def __init__(self, engine: Engine, bucket: Bucket, pipelines: Mapping[str, LoadedPipeline]) -> None:
        self._engine = engine
        self._bucket = bucket
        self._pipelines = dict(pipelines)
        self._looked = -SECONDS_BETWEEN

    def report(self, name: str) -> dict[str, Any]:
        """How the pipeline's canary or shadow stands, as `GET /pipelines/<p>/canary` answers.

        Raises:
            UnknownPipeline: there is no such pipeline.
        """
        pipeline = find_pipeline(self._pipelines, name)
        with Session(self._engine) as session:
            standing = find_standing(session, name)
            found = _judge(session, pipeline, standing)
        head = _head(name, standing)
        if found is None:
            return {**head, "verdict": None, "reasons": []}
        return {**head, "arms": {"champion": found.champion, "challenger": found.challenger}, **_shown(found)}

    def decide(self) -> int:
        """Ends those whose verdict is clear; gives how many. Looks at most every `SECONDS_BETWEEN` seconds."""
        if time.monotonic() - self._looked < SECONDS_BETWEEN:
            return 0
        self._looked = time.monotonic()
        return sum(self._decide(pipeline) for pipeline in self._pipelines.values())

    def _decide(self, pipeline: LoadedPipeline) -> bool:
        """One that cannot be judged does not hold up the others."""
        try:
            ended = self._end(pipeline)
        except Conflict as error:
            logger.info("canary_ended_by_another", extra={"pipeline": pipeline.name, "error": str(error)})
            return False
        except EsteiraError as error:
            logger.warning("canary not judged", extra={"pipeline": pipeline.name, "error": str(error)})
            return False
        if ended:
            self._carry(pipeline.name)
        return ended

    def _end(self, pipeline: LoadedPipeline) -> bool:
        with Session(self._engine) as session, session.begin():
            standing = find_standing(session, pipeline.name)
            report = _judge(session, pipeline, standing)
            if report is None or standing.challenger is None:
                return False
            _log(pipeline.name, standing, report)
            mode = find_mode(standing.challenger)
            reason = f"{mode} of {standing.challenger.version}: {'; '.join(report.reasons)}"[:MAX_REASON]
            seen = standing.generation
            if report.verdict == "rollback":
                rollback(session, pipeline.name, reason=reason, by=BY, expected_generation=seen)
                return True
            if report.verdict == "promote" and pipeline.spec.promotion == mode:
                version = standing.challenger.version
                promote(session, pipeline.name, version, reason=reason, by=BY, expected_generation=seen)
                return True
        return False

    def _carry(self, pipeline: str) -> None:
        """At once, for a canary that does harm; where this fails, the trainer's reconcile does it."""
        try:
            with Session(self._engine) as session:
                write_pointer(session, self._bucket, pipeline)
        except EsteiraError as error:
            logger.warning("pointer not written yet", extra={"pipeline": pipeline, "error": str(error)})


def _judge(session: Session, pipeline: LoadedPipeline, standing: Standing) -> CanaryReport | None:
    champion, challenger = standing.champion, standing.challenger
    if champion is None or challenger is None:
        return None
    since = as_utc(challenger.promoted_at)
    minutes = (datetime.now(UTC) - since).total_seconds() / 60
    if challenger.shadow:
        paired = read_arms(session, pipeline.name, champion.version, challenger.version, since)
        return judge_shadow(pipeline, *paired, minutes)
    arms = [read_arm(session, pipeline.name, release.version, since) for release in (champion, challenger)]
    return judge_canary(pipeline, arms[0], arms[1], minutes)


def find_mode(challenger: PromotedRelease) -> str:
    """How the release is tried out: `canary` or `shadow`."""
    return "shadow" if challenger.shadow else "canary"


def _head(name: str, standing: Standing) -> dict[str, Any]:
    champion, challenger = standing.champion, standing.challenger
    return {
        "pipeline": name,
        "generation": standing.generation,
        "champion": champion.version if champion else None,
        "challenger": challenger.version if challenger else None,
        "mode": find_mode(challenger) if challenger else None,
        "share": challenger.share if challenger else None,
        "since": as_utc(challenger.promoted_at) if challenger else None,
    }


def _shown(report: CanaryReport) -> dict[str, Any]:
    fields = msgspec.structs.asdict(report)
    return {name: value for name, value in fields.items() if name not in ("champion", "challenger")}


def _log(pipeline: str, standing: Standing, report: CanaryReport) -> None:
    challenger = standing.challenger.version if standing.challenger else None
    facts = {"pipeline": pipeline, "model_version": challenger, "generation": standing.generation}
    facts["mode"] = find_mode(standing.challenger) if standing.challenger else None
    figures: dict[str, Any] = {"predictions": report.challenger.predictions, "failures": report.challenger.failures}
    figures |= {"minutes": report.minutes, "score_psi": report.score_psi}
    level = logging.WARNING if report.verdict == "rollback" else logging.INFO
    logger.log(level, "canary_judged", extra={**facts, **figures, "verdict": report.verdict, "reason": report.reasons})
