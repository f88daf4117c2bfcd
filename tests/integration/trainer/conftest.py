"""A small pipeline with a dataset, and a trainer service in this process that starts real jobs."""

import hashlib
import io
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.cloud.pubsub_v1 import PublisherClient
from sqlalchemy import Engine, insert
from sqlalchemy.orm import Session

from esteira.bucket import Bucket
from esteira.database import make_engine
from esteira.dataset import Manifest, Part, encode_manifest, manifest_path, part_path, version_of
from esteira.events import EVENTS
from esteira.pipeline import load_pipeline
from esteira.settings import read_settings
from esteira.statement import compile_statement
from esteira.tables import datasets, ingestions
from esteira_cli.stack import Stack
from trainer.handlers import Trainer
from trainer.main import Settings, make_trainer

PIPELINE = "parcels"
YAML = """
pipeline: parcels
task: classification
entity: [parcel]
event_time: sent_at
null_values: ["", "?"]
label: {name: late, sql: days > 3}
columns:
  parcel: {type: integer}
  sent_at: {type: timestamp}
  weight: {type: number, nullable: true}
  carrier: {type: string}
  days: {type: integer, nullable: true, known: after}
reference:
  carriers: {file: reference/carriers.csv, columns: {carrier: string, fleet: integer}}
training:
  min_rows: 200
  params: {hist_gradient_boosting: {max_iter: 20}}
gates: {max_loss_to_champion: 0.05, slices: [carrier]}
"""
SQL = """SELECT weight, raw.carrier, hour(sent_at) AS hour, fleet
FROM raw LEFT JOIN carriers USING (carrier)
"""
FLEETS = {"ant": 10, "bee": 200, "owl": 35}
START = datetime(2024, 1, 1, tzinfo=UTC)


class Datasets:
    """Writes dataset versions as etl does."""

    def __init__(self, engine: Engine, bucket: Bucket, folder: Path) -> None:
        self.engine = engine
        self.bucket = bucket
        self.pipeline = load_pipeline(folder)
        self._parts: list[Part] = []

    def add(self, rows: int = 3000) -> Manifest:
        """Adds a file of `rows` rows and the dataset version that holds it."""
        number = len(self._parts) + 1
        ingestion, raw = uuid4(), f"raw/{PIPELINE}/{number}.csv"
        table, text = _make(number, rows)
        self.bucket.upload_once(raw, text.encode())
        self._parts.append(self._part(table, ingestion))
        manifest = self._manifest(number)
        path = manifest_path(PIPELINE, manifest.version)
        self.bucket.upload_once(path, encode_manifest(manifest))
        with Session(self.engine) as session, session.begin():
            session.execute(
                insert(ingestions).values(
                    id=ingestion, pipeline=PIPELINE, bucket=self.bucket.name, object=raw, generation=number
                )
            )
            values = {"pipeline": PIPELINE, "number": number, "version": manifest.version, "manifest": path}
            session.execute(
                insert(datasets).values(
                    **values, rows=manifest.rows, labelled=manifest.labelled, ingestion_id=ingestion
                )
            )
        return manifest

    def _part(self, table: pa.Table, ingestion: object) -> Part:
        sink = io.BytesIO()
        pq.write_table(table, sink)
        digest = hashlib.sha256(sink.getvalue()).hexdigest()
        path = part_path(PIPELINE, digest)
        self.bucket.upload_once(path, sink.getvalue())
        return Part(path=path, sha256=digest, rows=len(table), labelled=len(table), ingestion_id=ingestion)  # type: ignore[arg-type]

    def _manifest(self, number: int) -> Manifest:
        statement = compile_statement(self.pipeline)
        rows = sum(part.rows for part in self._parts)
        manifest = Manifest(
            pipeline=PIPELINE,
            number=number,
            version="",
            features=statement.features,
            statement_sha256=hashlib.sha256(statement.sql.encode()).hexdigest(),
            parts=list(self._parts),
            rows=rows,
            labelled=rows,
            created_at=datetime.now(UTC),
        )
        return msgspec.structs.replace(manifest, version=version_of(manifest))


def _make(number: int, rows: int) -> tuple[pa.Table, str]:
    random = np.random.default_rng(number)
    parcel = np.arange(rows) + number * 1_000_000
    sent = [START + timedelta(days=30 * number, minutes=int(7 * i)) for i in range(rows)]
    weight = np.round(random.gamma(2, 2, rows), 3)
    carrier = random.choice(list(FLEETS), rows)
    risk = 0.5 * weight + (carrier == "owl") * 1.5 + np.array([s.hour for s in sent]) / 12 - 3
    late = random.random(rows) < 1 / (1 + np.exp(-risk))
    lines = [
        f"{p},{s:%Y-%m-%dT%H:%M:%SZ},{w},{c},{5 if y else 1}"
        for p, s, w, c, y in zip(parcel, sent, weight, carrier, late, strict=True)
    ]
    columns = {
        "_entity": pa.array([str(p) for p in parcel]),
        "_event_time": pa.array([s.replace(tzinfo=None) for s in sent], pa.timestamp("us")),
        "_label": pa.array(late.astype(float)),
        "_line": pa.array(np.arange(rows) + 2),
        "weight": pa.array(weight),
        "carrier": pa.array(carrier.tolist()),
        "hour": pa.array([float(s.hour) for s in sent]),
        "fleet": pa.array([float(FLEETS[c]) for c in carrier]),
    }
    return pa.table(columns), "\n".join(["parcel,sent_at,weight,carrier,days", *lines, ""])


@pytest.fixture
def pipelines_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "pipelines" / PIPELINE
    (folder / "reference").mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(YAML)
    (folder / "features.sql").write_text(SQL)
    fleet = "".join(f"{name},{size}\n" for name, size in FLEETS.items())
    (folder / "reference" / "carriers.csv").write_text(f"carrier,fleet\n{fleet}")
    return tmp_path / "pipelines"


@pytest.fixture
def settings(
    infrastructure: Stack,
    mlflow_server: str,
    database_url: str,
    bucket_name: str,
    pubsub_project: str,
    pipelines_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Settings:
    """The service's settings; its jobs read the same from the environment."""
    given = {
        "GOOGLE_CLOUD_PROJECT": pubsub_project,
        "BUCKET": bucket_name,
        "DATABASE_URL": database_url,
        "PIPELINES_DIR": str(pipelines_dir),
        "MLFLOW_TRACKING_URI": mlflow_server,
        "LEASE_SECONDS": "20",
        "TRAINING_THREADS": "1",
        "CACHE_DIR": str(tmp_path / "cache"),
        "PUSH_AUTHENTICATION": "none",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return read_settings(Settings, os.environ)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def bucket(settings: Settings) -> Bucket:
    return Bucket(settings.bucket, settings.google_cloud_project)


@pytest.fixture
def versions(engine: Engine, bucket: Bucket, pipelines_dir: Path) -> Datasets:
    return Datasets(engine, bucket, pipelines_dir / PIPELINE)


@pytest.fixture
def trainer(settings: Settings) -> Iterator[Trainer]:
    client = PublisherClient()
    for event in EVENTS:
        client.create_topic(name=f"projects/{settings.google_cloud_project}/topics/{event.topic}")
    client.stop()
    trainer = make_trainer(settings)
    yield trainer
    trainer.close()
