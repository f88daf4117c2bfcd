"""What follows the ledger: the bucket's pointer, MLflow's registered versions, alias and run states.

The ledger in Postgres is the truth; here it is carried outside, by the job right after its commit and by every
reconcile again.
"""

import logging
from collections.abc import Callable
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from esteira.bucket import Bucket
from esteira.exceptions import EsteiraError
from esteira.promotions import find_champion, write_pointer
from trainer import repository
from trainer.repository import UNFINISHED
from trainer.rows import RunState, UnregisteredRelease
from trainer.tracking import OpenRun, Tracking

logger = logging.getLogger(__name__)

RELEASES_AT_ONCE = 20
RUNS_AT_ONCE = 50


class Projections:
    """Carries the ledger to the bucket and to MLflow."""

    def __init__(self, engine: Engine, bucket: Bucket, tracking: Tracking) -> None:
        self._engine = engine
        self._bucket = bucket
        self._tracking = tracking

    def repair(self, pipelines: list[str]) -> dict[str, int]:
        """Brings everything up to date that lags; what is out of reach is logged and left to the next time."""
        return {
            "pointers": sum(_tried("pointer", self._write_pointer, pipeline) for pipeline in pipelines),
            "registered": _tried("registered versions", self._register_missing),
            "aliases": sum(_tried("alias", self._set_alias, pipeline) for pipeline in pipelines),
            "tracked_runs_closed": _tried("tracked runs", self._close_runs, pipelines),
        }

    def repair_pipeline(self, pipeline: str) -> None:
        """Does so for one pipeline, right after a commit."""
        _tried("pointer", self._write_pointer, pipeline)
        _tried("registered versions", self._register_missing)
        _tried("alias", self._set_alias, pipeline)
        _tried("tracked runs", self._close_runs, [pipeline])

    def write_pointer(self, pipeline: str) -> None:
        """Carries a promotion to the bucket, where the predictors look."""
        _tried("pointer", self._write_pointer, pipeline)

    def set_alias(self, pipeline: str) -> None:
        """Carries a promotion to MLflow."""
        _tried("alias", self._set_alias, pipeline)

    def _write_pointer(self, pipeline: str) -> int:
        with Session(self._engine) as session:
            return int(write_pointer(session, self._bucket, pipeline))

    def _register_missing(self) -> int:
        with Session(self._engine) as session:
            missing = repository.unregistered_releases(session, RELEASES_AT_ONCE)
        for release in missing:
            self._register(release)
        return len(missing)

    def _register(self, release: UnregisteredRelease) -> None:
        tags = {"release_version": release.version, "sha256": release.sha256}
        number = self._tracking.register(release.pipeline, release.mlflow_run_id, tags)
        with Session(self._engine) as session, session.begin():
            repository.set_mlflow_version(session, release.pipeline, release.version, number)

    def _set_alias(self, pipeline: str) -> int:
        with Session(self._engine) as session:
            champion = find_champion(session, pipeline)
            number = repository.find_mlflow_version(session, pipeline, champion.version) if champion else None
        return int(number is not None and self._tracking.set_champion(pipeline, number))

    def _close_runs(self, pipelines: list[str]) -> int:
        """Ends runs in MLflow whose training ended, or was begun anew, before they could say so."""
        return sum(self._close(run) for run in self._tracking.open_runs(pipelines, RUNS_AT_ONCE))

    def _close(self, run: OpenRun) -> int:
        with Session(self._engine) as session:
            end = repository.find_run_state(session, UUID(run.training_run_id))
        if end is not None and end.status in UNFINISHED and end.fence == run.fence:
            return 0
        self._tracking.end_run(run.id, _ending(end, run))
        return 1


def _ending(end: RunState | None, run: OpenRun) -> str:
    if end is not None and end.mlflow_run_id == run.id:
        return "FINISHED"
    return "FAILED" if end is not None and end.status == "failed" and end.fence == run.fence else "KILLED"


def _tried(what: str, action: Callable[..., int], *arguments: object) -> int:
    try:
        return action(*arguments)
    except EsteiraError as error:
        logger.warning("projection not brought up to date", extra={"projection": what, "error": str(error)})
    except Exception:
        logger.exception("projection failed", extra={"projection": what})
    return 0
