"""The one transaction in which a training run ends, and what follows from it."""

from typing import Any

import msgspec
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from esteira.events import ModelApproved
from esteira.leases import Lease, held
from esteira.outbox import enqueue
from esteira.promotions import promote
from trainer import repository
from trainer.rows import NewRelease, TrainingRun

SOURCE = "trainer"


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ends."""

    status: str
    """`promoted`, `approved` or `rejected`."""
    verdict: str
    metrics: dict[str, float]
    gates: list[Any]
    mlflow_run_id: str
    release: NewRelease | None = None
    """Where it is released."""
    share: float | None = None
    """Of entities that a release shall answer for: 1 promotes it, less tries it out, None does neither."""
    shadow: bool = False
    """Whether it is tried out in the champion's shadow, not by canary."""
    expected_generation: int | None = None
    """Of the champion that the release was compared with; where it is to be promoted."""


def settle(engine: Engine, lease: Lease, run: TrainingRun, ending: Ending) -> None:
    """Records release, promotion, end of the run and the events that tell of them: all or nothing.

    Raises:
        Conflict: another release was promoted since the comparison.
        LeaseLost: another job has the run.
    """
    with Session(engine) as session, session.begin():
        held(session, lease)
        if ending.release is not None:
            _release(session, run, ending, ending.release)
        values = {
            "status": ending.status,
            "verdict": ending.verdict,
            "metrics": ending.metrics,
            "gates": ending.gates,
            "mlflow_run_id": ending.mlflow_run_id,
            "release_version": ending.release.version if ending.release else None,
        }
        repository.finish_run(session, lease, values)


def _release(session: Session, run: TrainingRun, ending: Ending, release: NewRelease) -> None:
    repository.add_release(session, release)
    approved = ModelApproved(
        pipeline=release.pipeline,
        version=release.version,
        path=release.path,
        sha256=release.sha256,
        metrics=ending.metrics,
    )
    enqueue(session, approved, SOURCE)
    if ending.share is not None:
        promote(
            session,
            release.pipeline,
            release.version,
            reason=run.reason,
            by=SOURCE,
            expected_generation=ending.expected_generation,
            share=ending.share,
            shadow=ending.shadow and ending.share < 1,
        )


def fail(engine: Engine, lease: Lease, verdict: str) -> None:
    """Ends a run that no further attempt can save.

    Raises:
        LeaseLost: another job has the run.
    """
    with Session(engine) as session, session.begin():
        values = {"status": "failed", "verdict": verdict}
        repository.finish_run(session, lease, values)
