"""The composition root of the service: reads the environment, builds the adapters, gives the app to gunicorn."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from flask import Flask
from sqlalchemy import Engine

from esteira.bucket import Bucket
from esteira.database import make_engine
from esteira.exceptions import Problem
from esteira.logs import configure_logging
from esteira.outbox import Relay
from esteira.pipeline import load_pipelines
from esteira.publisher import Publisher
from esteira.pushes import make_verifier
from esteira.settings import DatabaseSettings, read_settings
from esteira.web import name_build
from trainer.app import create_app
from trainer.dispatch import GITHUB_API_URL, Dispatcher
from trainer.handlers import Trainer
from trainer.launcher import CloudRunLauncher, Launcher, SubprocessLauncher
from trainer.projections import Projections
from trainer.tracking import Tracking

JOB_FORM = "projects/<project>/locations/<region>/jobs/<name>"
_JOB = re.compile(re.sub("<[a-z]+>", "[^/]+", JOB_FORM))

NO_TOKEN = "no-token"  # noqa: S105
"""What `infra/bootstrap.sh` puts into the secret, which has to have a value."""


class Settings(DatabaseSettings, frozen=True, kw_only=True):
    """What the trainer's service is told by its environment."""

    mlflow_tracking_uri: str
    """The address of the MLflow server."""
    mlflow_tracking_auth: Literal["", "google-id-token"] = ""
    """`google-id-token` where MLflow is a Cloud Run service, which asks for one; read by MLflow's client too."""
    lease_seconds: float = 60.0
    """How long a job may be silent before its run is started anew."""
    launcher: Literal["subprocess", "cloud-run"] = "subprocess"
    """Where jobs run: `subprocess` is this machine, `cloud-run` the Cloud Run job that TRAINING_JOB names."""
    training_job: str | None = None
    """The job that `cloud-run` starts, projects/<project>/locations/<region>/jobs/<name>."""
    training_threads: int = 0
    """Threads of a job on this machine; 0 takes one for each processor."""
    pool_size: int = 5
    """Connections to Postgres: one for each request at once, and one to spare."""
    operators: str = ""
    """The e-mail addresses that may promote and roll back, separated by commas, besides PUSH_SERVICE_ACCOUNT."""
    github_repository: str | None = None
    """owner/name of the repository whose workflows deliver; told of each approved release, with GITHUB_TOKEN."""
    github_token: str | None = None
    """A token that may send a repository_dispatch to GITHUB_REPOSITORY (its permission is contents: write)."""
    github_api_url: str = GITHUB_API_URL
    """Where GitHub's API is."""
    cache_dir: Path | None = None
    """A folder for parts and releases from the bucket; handed on to a job on this machine."""

    @classmethod
    def problems(cls, values: Mapping[str, Any]) -> list[Problem]:
        """Finds a job that is not named as the Jobs API names it."""
        found = super().problems(values)
        job = values.get("training_job") or ""
        if values.get("launcher") == "cloud-run" and "training_job" in values and not _JOB.fullmatch(job):
            wrong = f"is {job!r}" if job else "is not set"
            found.append(Problem("TRAINING_JOB", f"{wrong}; LAUNCHER=cloud-run needs {JOB_FORM}"))
        return found


def create() -> Flask:
    """Makes the app of one worker process."""
    settings = read_settings(Settings, os.environ)
    configure_logging("trainer", settings.log_level, settings.google_cloud_project)
    app = create_app(make_trainer(settings), make_verifier(settings), _operators(settings))
    return name_build(app, settings)


def _operators(settings: Settings) -> frozenset[str]:
    return frozenset(address.strip() for address in settings.operators.split(",") if address.strip())


def make_trainer(settings: Settings, launcher: Launcher | None = None) -> Trainer:
    """Connects the trainer with the outside world; `launcher` stands in for the one that the settings name."""
    engine = make_engine(settings.database_url, settings.pool_size)
    bucket = Bucket(settings.bucket, settings.google_cloud_project, settings.storage_emulator_host)
    tracking = Tracking(settings.mlflow_tracking_uri, retries=1)
    return Trainer(
        engine=engine,
        pipelines=load_pipelines(settings.pipelines_dir),
        launcher=launcher or make_launcher(settings),
        relay=Relay(engine, Publisher(settings.google_cloud_project)),
        projections=Projections(engine, bucket, tracking),
        lease_seconds=settings.lease_seconds,
        dispatcher=make_dispatcher(settings, engine),
    )


def make_dispatcher(settings: Settings, engine: Engine) -> Dispatcher | None:
    """Says whether GitHub is told of approved releases: not before a person gave a token."""
    if not settings.github_repository or settings.github_token in ("", None, NO_TOKEN):
        return None
    return Dispatcher(engine, settings.github_repository, settings.github_token, settings.github_api_url)


def make_launcher(settings: Settings) -> Launcher:
    """Says where jobs run."""
    if settings.launcher == "cloud-run":
        return CloudRunLauncher(settings.training_job or "")
    return SubprocessLauncher(os.environ, settings.training_threads)
