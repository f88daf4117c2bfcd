"""The four services' apps, put together without a server to talk to, and the settings that each reads."""

from collections.abc import Callable

import msgspec
from flask import Flask

import trainer.main
from esteira.bucket import Bucket
from esteira.database import make_engine
from esteira.outbox import Relay
from esteira.publisher import Publisher
from etl.app import create_app as create_etl
from etl.attempt import Attempts
from etl.handlers import Handlers
from etl.ingest import Ingestor
from etl.settings import EtlSettings
from monitor.app import Adapters
from monitor.app import create_app as create_monitor
from monitor.settings import MonitorSettings
from pages import ROOT
from predictor.app import create_app as create_predictor
from predictor.prediction_log import PredictionLog
from predictor.serving import Servings
from predictor.settings import PredictorSettings
from trainer.app import create_app as create_trainer
from trainer.job import JobSettings

SERVICES = ("etl", "trainer", "predictor", "monitor")
NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
PROJECT = "documentation"


def etl_app() -> Flask:
    engine, bucket = make_engine(NOWHERE), Bucket("b", PROJECT, "http://127.0.0.1:1")
    ingestor = Ingestor(engine, Attempts(engine, bucket, {}, 1), 60.0)
    return create_etl(Handlers(engine, bucket, ingestor, Relay(engine, Publisher(PROJECT)), []), None)


def trainer_app() -> Flask:
    settings = trainer.main.Settings(
        google_cloud_project=PROJECT,
        bucket="b",
        storage_emulator_host="http://127.0.0.1:1",
        database_url=NOWHERE,
        pipelines_dir=ROOT / "pipelines",
        mlflow_tracking_uri="http://127.0.0.1:1",
    )
    return create_trainer(trainer.main.make_trainer(settings), None)


def predictor_app() -> Flask:
    publisher = Publisher(PROJECT)
    servings = Servings(ROOT)
    return create_predictor(servings, PredictionLog(publisher, ROOT), publisher, None)


def monitor_app() -> Flask:
    adapters = Adapters(
        engine=make_engine(NOWHERE),
        bucket=Bucket("b", PROJECT, "http://127.0.0.1:1"),
        publisher=Publisher(PROJECT),
        mlflow_tracking_uri="http://127.0.0.1:1",
    )
    return create_monitor(adapters, {}, None)


APPS: dict[str, Callable[[], Flask]] = {
    "etl": etl_app,
    "trainer": trainer_app,
    "predictor": predictor_app,
    "monitor": monitor_app,
}
SETTINGS: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "etl": (EtlSettings,),
    "trainer": (trainer.main.Settings, JobSettings),
    "predictor": (PredictorSettings,),
    "monitor": (MonitorSettings,),
}
