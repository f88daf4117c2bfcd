"""The composition root of the service: reads the environment, builds the adapters, gives the app to gunicorn."""

import os
from pathlib import Path

from flask import Flask

from esteira.bucket import Bucket
from esteira.database import make_engine
from esteira.logs import configure_logging
from esteira.outbox import Relay
from esteira.pipeline import load_pipelines
from esteira.publisher import Publisher
from esteira.pushes import make_verifier
from esteira.settings import DatabaseSettings, read_settings
from trainer.app import create_app
from trainer.handlers import Trainer
from trainer.launcher import SubprocessLauncher
from trainer.projections import Projections
from trainer.tracking import Tracking


class Settings(DatabaseSettings, frozen=True, kw_only=True):
    """What the trainer's service is told by its environment."""

    mlflow_tracking_uri: str
    """The address of the MLflow server."""
    lease_seconds: float = 60.0
    """How long a job may be silent before its run is started anew."""
    training_threads: int = 0
    """Threads of a job; 0 takes one for each processor."""
    cache_dir: Path | None = None
    """A folder for parts and releases from the bucket; handed on to the job."""


def create() -> Flask:
    """Makes the app of one worker process."""
    settings = read_settings(Settings, os.environ)
    configure_logging("trainer", settings.log_level, settings.google_cloud_project)
    return create_app(make_trainer(settings), make_verifier(settings))


def make_trainer(settings: Settings) -> Trainer:
    """Connects the trainer with the outside world."""
    engine = make_engine(settings.database_url)
    bucket = Bucket(settings.bucket, settings.google_cloud_project, settings.storage_emulator_host)
    tracking = Tracking(settings.mlflow_tracking_uri, retries=1)
    return Trainer(
        engine=engine,
        pipelines=load_pipelines(settings.pipelines_dir),
        launcher=SubprocessLauncher(os.environ, settings.training_threads),
        relay=Relay(engine, Publisher(settings.google_cloud_project)),
        projections=Projections(engine, bucket, tracking),
        lease_seconds=settings.lease_seconds,
    )
