"""Etl with real Postgres, bucket and Pub/Sub emulator, for a small pipeline of two columns and a label."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.cloud.pubsub_v1 import PublisherClient
from sqlalchemy import Engine

from esteira.bucket import Bucket
from esteira.database import make_engine
from esteira.events import DatasetPrepared, OutcomesObserved
from esteira.outbox import Relay
from esteira.publisher import Publisher
from esteira_cli.stack import Stack
from etl.attempt import Attempts
from etl.handlers import Handlers
from etl.ingest import Ingestor
from etl.workbench import Workbench, make_workbenches

PIPELINE_YAML = """\
pipeline: parcels
task: classification
entity: [parcel]
event_time: sent
label: {name: late, sql: days > 3}
columns:
  parcel: {type: string, max_length: 2000}
  sent: {type: timestamp}
  weight: {type: number, min: 0}
  depot: {type: string, values: [north, south], nullable: true}
  days: {type: integer, nullable: true, known: after}
"""
FEATURES_SQL = "SELECT raw.weight, raw.weight / 0 AS ratio, upper(raw.depot) AS depot_code FROM raw\n"
HEADER = "parcel,sent,weight,depot,days"


@pytest.fixture
def pipelines(tmp_path: Path) -> Path:
    folder = tmp_path / "pipelines" / "parcels"
    folder.mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(PIPELINE_YAML)
    (folder / "features.sql").write_text(FEATURES_SQL)
    return folder.parent


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url, pool_size=10)
    yield engine
    engine.dispose()


@pytest.fixture
def bucket(bucket_name: str, pubsub_project: str) -> Bucket:
    return Bucket(bucket_name, pubsub_project)


@pytest.fixture
def publisher(infrastructure: Stack, pubsub_project: str) -> Iterator[Publisher]:
    client = PublisherClient()
    for event in (DatasetPrepared, OutcomesObserved):
        client.create_topic(name=f"projects/{pubsub_project}/topics/{event.topic}")
    publisher = Publisher(pubsub_project)
    yield publisher
    publisher.close()
    client.stop()


@pytest.fixture
def workbenches(pipelines: Path) -> Iterator[dict[str, Workbench]]:
    made = make_workbenches(pipelines)
    yield made
    for workbench in made.values():
        workbench.close()


@pytest.fixture
def handlers(engine: Engine, bucket: Bucket, workbenches: dict[str, Workbench], publisher: Publisher) -> Handlers:
    attempts = Attempts(engine, bucket, workbenches, max_file_bytes=1 << 20)
    return Handlers(engine, bucket, Ingestor(engine, attempts, lease_seconds=30), Relay(engine, publisher), workbenches)
