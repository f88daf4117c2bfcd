"""The monitor with real Postgres and bucket, for a pipeline of two features, driven over HTTP."""

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import numpy as np
import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, func, insert, select, text
from sqlalchemy.orm import Session

from esteira.bucket import Bucket
from esteira.database import make_engine
from esteira.events import Event, Outcome, OutcomesObserved, Prediction, PredictionsServed, encode
from esteira.exceptions import Unavailable
from esteira.pipeline import load_pipelines
from esteira.profile import Profile, describe_categorical, describe_numeric
from esteira.tables import datasets, outbox, promotions, releases
from monitor.app import Adapters, create_app

PIPELINE = "parcels"
PIPELINE_YAML = """\
pipeline: parcels
task: classification
entity: [parcel]
event_time: sent
label: {name: late, sql: days > 3}
columns:
  parcel: {type: string, max_length: 40}
  sent: {type: timestamp}
  weight: {type: number, min: 0}
  depot: {type: string, values: [north, south], nullable: true}
  days: {type: integer, nullable: true, known: after}
monitoring: {window: day, min_outcomes: 100}
retraining: {max_performance_loss: 0.02, max_calibration_bias: 0.15, min_new_rows: 0.1}
"""
DAY = datetime(2024, 5, 6, tzinfo=UTC)
REFUSING_PORT = 9


class Mailbox:
    """Takes messages as Pub/Sub does, and can be away."""

    def __init__(self) -> None:
        self.away = False
        self.messages: list[Any] = []

    def publish_many(self, messages: list[Any]) -> list[Exception | None]:
        if self.away:
            return [Unavailable("Pub/Sub is away") for _ in messages]
        self.messages += messages
        return [None for _ in messages]


class World:
    """What a test does to a monitor, and sees of it."""

    def __init__(self, engine: Engine, bucket: Bucket, mailbox: Mailbox, folder: Path) -> None:
        self.engine = engine
        self.bucket = bucket
        self.mailbox = mailbox
        self.pipelines = load_pipelines(folder)
        self.mlflow = f"http://127.0.0.1:{REFUSING_PORT}"
        self.random = np.random.default_rng(7)
        self.client = self.start()

    def start(self) -> FlaskClient:
        """A new process, as far as the monitor can tell: it knows what Postgres knows."""
        adapters = Adapters(
            engine=self.engine, bucket=self.bucket, publisher=self.mailbox, mlflow_tracking_uri=self.mlflow
        )
        self.client = create_app(adapters, self.pipelines, None).test_client()
        return self.client

    def release(self, version: str, auc: float = 0.8, dataset: int = 1) -> Profile:
        profile = self._profile()
        path = f"releases/{PIPELINE}/{version}/"
        content = msgspec.json.encode(profile)
        manifest = msgspec.json.encode({"files": {"profile.json": {"sha256": _sha256(content), "size": len(content)}}})
        self.bucket.upload_once(f"{path}profile.json", content)
        self.bucket.upload_once(f"{path}release.json", manifest)
        row = {"pipeline": PIPELINE, "version": version, "path": path, "sha256": _sha256(manifest)}
        row |= {"training_run_id": uuid4(), "dataset_number": dataset, "metrics": {"roc_auc": auc}}
        self.write(insert(releases).values(**row, gates=[], approved=True))
        return profile

    def _profile(self) -> Profile:
        random = np.random.default_rng(1)
        weights, depots = random.gamma(2.0, size=2000), random.choice(["north", "south"], size=2000).tolist()
        features = [describe_numeric("weight", weights), describe_categorical("depot", depots)]
        return Profile(features=features, score=describe_numeric("score", random.beta(2, 5, size=2000)), rows=2000)

    def promote(self, version: str, generation: int = 1) -> None:
        row = {"pipeline": PIPELINE, "generation": generation, "release_version": version}
        self.write(insert(promotions).values(**row, reason="test", by="test"))

    def dataset(self, number: int, labelled: int) -> None:
        row = {"pipeline": PIPELINE, "number": number, "version": f"v{number}", "manifest": f"m{number}"}
        self.write(insert(datasets).values(**row, rows=labelled, labelled=labelled, ingestion_id=uuid4()))

    def write(self, statement: Any) -> None:
        with Session(self.engine) as session, session.begin():
            session.execute(statement)

    def predictions(self, rows: int, start: datetime = DAY) -> list[Prediction]:
        return [self._prediction(start) for _ in range(rows)]

    def _prediction(self, start: datetime) -> Prediction:
        return Prediction(
            id=uuid4(),
            entity=f"parcel-{uuid4()}",
            event_time=start + timedelta(minutes=int(self.random.integers(0, 24 * 60))),
            served_at=datetime.now(UTC),
            score=float(self.random.beta(2, 5)),
            features=[float(self.random.gamma(2.0)), "north" if self.random.random() < 0.5 else "south"],
        )

    def outcomes(self, predictions: list[Prediction], informative: bool = True) -> list[Outcome]:
        """Labels drawn from the scores themselves, so that they are calibrated, or at random."""
        chance = [row.score if informative else 0.3 for row in predictions]
        labels = (self.random.random(len(predictions)) < np.array(chance)).astype(float)
        pairs = zip(predictions, labels.tolist(), strict=True)
        return [Outcome(entity=row.entity or "", label=label, event_time=row.event_time) for row, label in pairs]

    def serve(self, predictions: list[Prediction], version: str = "r1", event_id: str | None = None) -> int:
        return self.push(PredictionsServed(pipeline=PIPELINE, model_version=version, predictions=predictions), event_id)

    def observe(self, outcomes: list[Outcome], event_id: str | None = None) -> int:
        event = OutcomesObserved(pipeline=PIPELINE, source="feedback", rows=len(outcomes), outcomes=outcomes)
        return self.push(event, event_id)

    def push(self, event: Event, event_id: str | None = None) -> int:
        message = encode(event, "test")
        attributes = {**message.attributes, "ce-id": event_id or message.attributes["ce-id"]}
        body = {"data": base64.b64encode(message.data).decode(), "attributes": attributes, "messageId": "1"}
        return self.client.post(f"/events/{event.topic}", json={"message": body, "subscription": "s"}).status_code

    def reconcile(self) -> dict[str, int]:
        answer = self.client.post("/tasks/reconcile")
        assert answer.status_code == 200
        found: dict[str, int] = msgspec.json.decode(answer.data)
        return found

    def settle(self) -> None:
        """Lets the time pass after which a window in flux is judged."""
        self.write(text("UPDATE checks SET measured_at = measured_at - interval '1 minute' WHERE name = 'window'"))

    def windows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = msgspec.json.decode(self.client.get(f"/pipelines/{PIPELINE}/windows").data)[
            "windows"
        ]
        return found

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.client.get(f"/pipelines/{PIPELINE}").data)
        return found

    def requests(self) -> int:
        query = select(func.count()).where(outbox.c.topic == "retrain-requested")
        return int(self.scalar(query))

    def scalar(self, query: Any) -> Any:
        with Session(self.engine) as session:
            return session.execute(query).scalar()

    def rows(self, query: str) -> list[Any]:
        with Session(self.engine) as session:
            return list(session.execute(text(query)))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def ids(predictions: list[Prediction]) -> set[UUID]:
    return {row.id for row in predictions}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url, pool_size=10)
    yield engine
    engine.dispose()


@pytest.fixture
def world(engine: Engine, bucket_name: str, pubsub_project: str, tmp_path: Path) -> World:
    folder = tmp_path / "pipelines" / PIPELINE
    folder.mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(PIPELINE_YAML)
    (folder / "features.sql").write_text("SELECT raw.weight, raw.depot FROM raw\n")
    world = World(engine, Bucket(bucket_name, pubsub_project), Mailbox(), folder.parent)
    world.dataset(1, 1000)
    world.release("r1")
    world.promote("r1")
    return world
