"""The training job: `python -m trainer.job --run <id> --fence <n>`, one attempt at one run.

Exit codes: 0 the run ended (whatever its verdict) or is another job's, 1 a further attempt may succeed.
"""

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal
from uuid import UUID

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from esteira.bucket import Bucket
from esteira.database import make_engine
from esteira.exceptions import EsteiraError, LeaseLost, PermanentError, TransientError
from esteira.leases import Heartbeat, Lease
from esteira.logs import bind_context, configure_logging
from esteira.outbox import Relay
from esteira.pipeline import find_pipeline, load_pipelines
from esteira.publisher import Publisher
from esteira.settings import read_settings
from esteira.tables import training_runs
from trainer import repository
from trainer.projections import Projections
from trainer.rows import TrainingRun
from trainer.settle import fail
from trainer.tracking import Tracking

logger = logging.getLogger(__name__)

DONE, AGAIN = 0, 1
CONNECTIONS = 3


class JobSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a job is told by its environment."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe kind of log line to write."""
    google_cloud_project: str
    """The Google Cloud project that owns the topics and the bucket."""
    bucket: str
    """The name of the bucket, without gs://."""
    database_url: str
    """The URL of Postgres, postgresql+psycopg://user:password@host/name."""
    pipelines_dir: Path
    """The folder that holds one folder for each pipeline."""
    mlflow_tracking_uri: str
    """The address of the MLflow server."""
    mlflow_tracking_auth: Literal["", "google-id-token"] = ""
    """`google-id-token` where MLflow is a Cloud Run service, which asks for one; read by MLflow's client too."""
    lease_seconds: float = 60.0
    """How long this job may be silent before its run is started anew."""
    cache_dir: Path | None = None
    """A folder for parts and releases from the bucket."""
    code_version: str = ""
    """The commit of this code; the package's version without it."""


class Job:
    """An attempt, with what surrounds it: the lease, its heartbeat, and the record of how it ended."""

    def __init__(self, settings: JobSettings, lease: Lease) -> None:
        self._settings = settings
        self._lease = lease
        self._engine = make_engine(settings.database_url, CONNECTIONS)
        self._bucket = Bucket(settings.bucket, settings.google_cloud_project)
        self._tracking = Tracking(settings.mlflow_tracking_uri)

    def run(self) -> int:
        """Works on the run; gives the exit code."""
        try:
            with Session(self._engine) as session, session.begin():
                run = repository.start_run(session, self._lease)
            with bind_context(run.traceparent, None, run_id=str(run.id), pipeline=run.pipeline):
                return self._attempt(run)
        except LeaseLost as error:
            logger.warning("run is not ours", extra={"lease": repr(self._lease), "error": str(error)})
            return DONE

    def _attempt(self, run: TrainingRun) -> int:
        try:
            with Heartbeat(self._engine, self._lease):
                self._train(run)
        except LeaseLost:
            raise
        except PermanentError as error:
            logger.exception("training failed")
            fail(self._engine, self._lease, str(error))
        except Exception as error:
            logger.exception("attempt failed")
            outage = isinstance(error, TransientError)
            self._hand_back(repository.record_outage if outage else repository.record_attempt, error)
            return AGAIN
        self._follow_up(run)
        return DONE

    def _train(self, run: TrainingRun) -> None:
        from trainer.training import Training, Workshop  # scikit-learn takes seconds: heartbeats begin before

        pipeline = find_pipeline(load_pipelines(self._settings.pipelines_dir), run.pipeline)
        workshop = Workshop(
            engine=self._engine,
            bucket=self._bucket,
            tracking=self._tracking,
            cache=self._settings.cache_dir or Path(tempfile.gettempdir()) / "esteira-trainer",
            code_version=self._settings.code_version or metadata.version("esteira-trainer"),
        )
        Training(workshop, self._lease, run, pipeline).work()

    def _hand_back(self, record: Callable[[Session, Lease, str], None], error: Exception) -> None:
        """Frees the run for the next attempt; where that fails too, its lease runs out."""
        try:
            with Session(self._engine) as session, session.begin():
                record(session, self._lease, f"{type(error).__name__}: {error}")
        except (EsteiraError, SQLAlchemyError):
            logger.warning("run not handed back", exc_info=True)

    def _follow_up(self, run: TrainingRun) -> None:
        """What follows the commit; what is missed here, reconcile does."""
        Projections(self._engine, self._bucket, self._tracking).repair_pipeline(run.pipeline)
        publisher = Publisher(self._settings.google_cloud_project)
        try:
            Relay(self._engine, publisher).flush()
        except EsteiraError as error:
            logger.warning("outbox not flushed", extra={"error": str(error)})
        finally:
            publisher.close()


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Reads arguments and environment, and works."""
    parser = argparse.ArgumentParser(prog="python -m trainer.job", description="One attempt at one training run.")
    parser.add_argument("--run", type=UUID, required=True, help="the id of the row in training_runs")
    parser.add_argument("--fence", type=int, required=True, help="the fence under which it was claimed")
    given = parser.parse_args(arguments)
    settings = read_settings(JobSettings, environ)
    configure_logging("trainer", settings.log_level, settings.google_cloud_project)
    return Job(settings, Lease(training_runs, given.run, given.fence, settings.lease_seconds)).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
