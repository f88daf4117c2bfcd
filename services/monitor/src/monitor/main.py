"""The monitor's entry: `gunicorn -c python:esteira.gunicorn 'monitor.main:create()'`."""

import os

from flask import Flask

from esteira.bucket import Bucket
from esteira.database import make_engine
from esteira.logs import configure_logging
from esteira.pipeline import load_pipelines
from esteira.publisher import Publisher
from esteira.pushes import make_verifier
from esteira.settings import read_settings
from esteira.web import name_build
from monitor.app import Adapters, create_app
from monitor.settings import MonitorSettings


def create() -> Flask:
    """Makes the app from the environment."""
    settings = read_settings(MonitorSettings, os.environ)
    configure_logging("monitor", settings.log_level, settings.google_cloud_project)
    adapters = Adapters(
        engine=make_engine(settings.database_url, settings.pool_size),
        bucket=Bucket(settings.bucket, settings.google_cloud_project, settings.storage_emulator_host),
        publisher=Publisher(settings.google_cloud_project),
        mlflow_tracking_uri=settings.mlflow_tracking_uri,
    )
    return name_build(create_app(adapters, load_pipelines(settings.pipelines_dir), make_verifier(settings)), settings)
