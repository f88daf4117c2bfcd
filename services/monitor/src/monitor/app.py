"""Puts the monitor together."""

from typing import Any

import msgspec
from flask import Flask
from sqlalchemy import Engine, text

from esteira.bucket import Bucket
from esteira.outbox import Relay, Sender
from esteira.pipeline import LoadedPipeline
from esteira.pushes import PushVerifier
from esteira.web import create_base_app
from monitor.canaries import Canaries
from monitor.handlers import OutcomeObserver, PredictionStore, Reconciler
from monitor.judging import Judge
from monitor.partitions import Partitions
from monitor.profiles import ProfileStore
from monitor.routes import make_blueprint
from monitor.samples import SampleWriter
from monitor.tracking import Tracker


class Adapters(msgspec.Struct, frozen=True, kw_only=True):
    """What reaches outside."""

    engine: Engine
    bucket: Bucket
    publisher: Sender
    mlflow_tracking_uri: str


def create_app(adapters: Adapters, pipelines: dict[str, LoadedPipeline], verifier: PushVerifier | None) -> Flask:
    """The service as a WSGI application.

    Args:
        verifier: checks pushes and tasks; None lets everyone in.
    """
    engine = adapters.engine
    profiles = ProfileStore(adapters.bucket)
    partitions = Partitions(engine)
    relay = Relay(engine, adapters.publisher)
    judge = Judge(engine, pipelines, profiles, relay)
    tracker = Tracker(engine, pipelines, adapters.mlflow_tracking_uri)
    samples = SampleWriter(engine, adapters.bucket, pipelines)
    canaries = Canaries(engine, adapters.bucket, pipelines)
    app = create_base_app("monitor", verifier, ready=lambda: _reach(engine))
    app.register_blueprint(
        make_blueprint(
            engine,
            pipelines,
            PredictionStore(engine, pipelines, profiles, partitions),
            OutcomeObserver(engine, pipelines, judge),
            Reconciler(engine, pipelines, partitions, judge, relay, tracker, samples, canaries),
            canaries,
        )
    )
    return app


def _reach(engine: Engine) -> Any:
    with engine.connect() as connection:
        return connection.execute(text("SELECT 1")).scalar()
