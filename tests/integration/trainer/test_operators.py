"""Operators promote, try out and roll back: over HTTP, and with the `esteira` command against a real trainer."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from flask import Flask
from sqlalchemy import Engine, insert, literal, select
from sqlalchemy.orm import Session
from werkzeug.serving import make_server

from esteira.bucket import Bucket
from esteira.pipeline import LoadedPipeline, load_pipelines
from esteira.pushes import PushVerifier
from esteira.release import Pointer, pointer_path, release_path
from esteira.tables import outbox, predictions, promotions, releases, shadow_predictions
from esteira_cli.main import cli
from esteira_cli.promotion import commands
from esteira_cli.pubsub.tokens import load_signing_key
from monitor.app import Adapters
from monitor.app import create_app as create_monitor
from trainer.app import create_app
from trainer.handlers import Trainer
from trainer.main import Settings

PIPELINE = "parcels"
ANA = "ana@example.iam.gserviceaccount.com"
PUSH = "push@example.iam.gserviceaccount.com"
PATH = f"/pipelines/{PIPELINE}/promotions"


class Mailbox:
    """Takes messages as Pub/Sub does."""

    def publish_many(self, messages: list[Any]) -> list[Exception | None]:
        return [None for _ in messages]


@pytest.fixture
def released(engine: Engine) -> Engine:
    row = {"pipeline": PIPELINE, "training_run_id": uuid4(), "dataset_number": 1, "gates": [], "approved": True}
    with Session(engine) as session, session.begin():
        for version in ("1", "2", "3"):
            row |= {"path": release_path(PIPELINE, version), "sha256": version * 64, "metrics": {"roc_auc": 0.75}}
            session.execute(insert(releases).values(version=version, **row))
    return engine


def pointer(bucket: Bucket) -> Pointer:
    return msgspec.json.decode(bucket.read(pointer_path(PIPELINE)), type=Pointer)


def asked(version: str, **more: Any) -> dict[str, Any]:
    return {"version": version, "reason": "because", "by": "ana", **more}


Serve = Callable[[Flask], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    running: list[tuple[Any, threading.Thread]] = []

    def start(app: Flask) -> str:
        server = make_server("127.0.0.1", 0, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


def test_ledger_pointer_and_event_go_together(trainer: Trainer, released: Engine, bucket: Bucket) -> None:
    client = create_app(trainer, None).test_client()
    first = client.post(PATH, json=asked("1"))
    assert (first.status_code, first.get_json()["generation"]) == (201, 1)
    found = client.post(PATH, json=asked("2", share=0.2, expected_generation=1)).get_json()
    assert (found["champion"], found["challenger"], found["share"]) == ("1", "2", 0.2)
    assert (pointer(bucket).version, pointer(bucket).challenger and pointer(bucket).challenger.version) == ("1", "2")
    assert client.post(PATH, json=asked("3", expected_generation=1)).status_code == 409
    ended = client.post(f"/pipelines/{PIPELINE}/rollback", json={"reason": "no", "by": "ana"})
    assert (ended.status_code, ended.get_json()["champion"], pointer(bucket).challenger) == (201, "1", None)
    with Session(released) as session:
        sent = session.scalars(select(outbox.c.topic).where(outbox.c.published_at.is_not(None))).all()
    assert sent == ["model-promoted"] * 3
    rows = client.get(PATH).get_json()["promotions"]
    assert [(row["generation"], row["share"], row["metrics"]["roc_auc"]) for row in rows] == [
        (3, 1, 0.75),
        (2, 0.2, 0.75),
        (1, 1, 0.75),
    ]


@pytest.mark.parametrize(
    "body, status",
    [
        (asked("9"), 404),
        (asked("1", share=0), 400),
        (asked("1", share=1.5), 400),
        (asked("1", shadow=True), 400),
        (asked("1", reason=""), 400),
        ({"version": "1"}, 400),
        (asked("1", more=1), 400),
    ],
)
def test_what_makes_no_sense_is_refused(trainer: Trainer, released: Engine, body: dict[str, Any], status: int) -> None:
    client = create_app(trainer, None).test_client()
    assert client.post(PATH, json=body).status_code == status
    assert client.post("/pipelines/nothing/promotions", json=asked("1")).status_code == 404
    with Session(released) as session:
        assert session.execute(select(promotions)).first() is None


def test_operators_may_promote_and_nothing_else(
    trainer: Trainer, released: Engine, serve: Serve, tmp_path: Path
) -> None:
    key = load_signing_key(tmp_path)
    certificates = Flask("certificates")
    certificates.add_url_rule("/certs", "certs", lambda: key.certificates())
    verifier = PushVerifier("https://trainer", PUSH, f"{serve(certificates)}/certs")
    client = create_app(trainer, verifier, frozenset({ANA})).test_client()

    def bearer(email: str, audience: str = "https://trainer") -> dict[str, str]:
        return {"Authorization": f"Bearer {key.sign(audience, email)}"}

    assert client.post(PATH, json=asked("1")).status_code == 401
    assert client.post(PATH, json=asked("1"), headers=bearer("eve@example.com")).status_code == 401
    assert client.post(PATH, json=asked("1"), headers=bearer(ANA, "https://etl")).status_code == 401
    assert client.post(PATH, json=asked("1", by="eve"), headers=bearer(ANA)).status_code == 201
    assert client.post(PATH, json=asked("2", by="workflow"), headers=bearer(PUSH)).status_code == 201
    assert client.post("/tasks/reconcile", headers=bearer(ANA)).status_code == 401
    rows = client.get(PATH).get_json()["promotions"]
    assert [row["by"] for row in rows] == ["workflow", ANA]


class Operator:
    """Someone at a terminal."""

    def __init__(self, trainer_url: str, monitor_url: str) -> None:
        self._environ = {"ESTEIRA_TRAINER_URL": trainer_url, "ESTEIRA_MONITOR_URL": monitor_url, "ESTEIRA_BY": "ana"}

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, list(arguments), env=self._environ)


@pytest.fixture
def pipelines(pipelines_dir: Path) -> dict[str, LoadedPipeline]:
    loaded = load_pipelines(pipelines_dir)
    spec = loaded[PIPELINE].spec
    canary = msgspec.structs.replace(spec.canary, min_predictions=100)
    spec = msgspec.structs.replace(spec, promotion="manual", canary=canary)
    return {PIPELINE: msgspec.structs.replace(loaded[PIPELINE], spec=spec)}


@pytest.fixture
def operator(
    trainer: Trainer, settings: Settings, released: Engine, bucket: Bucket, serve: Serve, pipelines: Any
) -> Operator:
    adapters = Adapters(
        engine=released, bucket=bucket, publisher=Mailbox(), mlflow_tracking_uri=settings.mlflow_tracking_uri
    )
    monitor = create_monitor(adapters, pipelines, None)
    return Operator(serve(create_app(trainer, None)), serve(monitor))


def served(engine: Engine, version: str, rows: int, shift: float = 0.0) -> None:
    random, now = np.random.default_rng(3), datetime.now(UTC)
    values = [
        {
            "served_on": now.date(),
            "id": uuid4(),
            "pipeline": PIPELINE,
            "model_version": version,
            "entity": f"{version}-{number}",
            "event_time": now,
            "served_at": now,
            "score": float(random.beta(2, 5)) + shift,
            "features": [],
        }
        for number in range(rows)
    ]
    with Session(engine) as session, session.begin():
        session.execute(insert(predictions), values)


def shadowed(engine: Engine, champion: str, challenger: str, rows: int) -> None:
    """Both score the same rows, nearly alike."""
    served(engine, champion, rows)
    columns = [predictions.c[name] for name in ("id", "pipeline", "entity", "event_time", "served_at", "features")]
    copied = select(*columns, literal(challenger), predictions.c.score + 0.001)
    names = [*(column.name for column in columns), "model_version", "score"]
    with Session(engine) as session, session.begin():
        session.execute(insert(shadow_predictions).from_select(names, copied))


def test_a_person_promotes_and_rolls_back_and_sees_the_history(operator: Operator) -> None:
    assert "1 is the champion, generation 1" in operator.run("promote", PIPELINE, "1").output
    assert operator.run("promote", PIPELINE, "2", "--reason", "it is better").exit_code == 0
    again = operator.run("promote", PIPELINE, "2")
    assert (again.exit_code, "already, by generation 2" in again.output) == (0, True)
    assert "1 is the champion, generation 3" in operator.run("rollback", PIPELINE).output
    empty = operator.run("rollback", PIPELINE)
    assert (empty.exit_code, "no previous champion" in empty.output) == (1, True)
    assert "no release 9" in operator.run("promote", PIPELINE, "9").output
    rows = json.loads(operator.run("history", PIPELINE, "--json").output)
    assert [(row["generation"], row["release_version"], row["by"]) for row in rows] == [
        (3, "1", "ana"),
        (2, "2", "ana"),
        (1, "1", "ana"),
    ]
    table = operator.run("history", PIPELINE).output
    assert all(text in table for text in ("it is better", "roc_auc 0.7500", "champion"))


def test_a_canary_is_seen_through_to_its_promotion(operator: Operator, released: Engine) -> None:
    operator.run("promote", PIPELINE, "1")
    begun = operator.run("promote", PIPELINE, "2", "--canary", "0.25")
    assert "canary of 2 for 25% of entities, generation 2" in begun.output
    assert "already" in operator.run("promote", PIPELINE, "2", "--canary", "0.25").output
    assert "50% of entities, generation 3" in operator.run("promote", PIPELINE, "2", "--canary", "0.5").output
    served(released, "1", 300)
    served(released, "2", 120)
    found = operator.run("promote", PIPELINE, "2", "--canary", "0.5", "--patience", "1", "--wait")
    assert "2 was promoted: canary of 2: 120 predictions of the challenger" in found.output
    assert (found.exit_code, "needs --predictor-url" in found.output) == (0, True)


def test_a_shadow_is_begun_seen_through_and_told_from_a_canary(
    operator: Operator, released: Engine, bucket: Bucket
) -> None:
    operator.run("promote", PIPELINE, "1")
    both = operator.run("promote", PIPELINE, "2", "--canary", "0.2", "--shadow", "0.2")
    assert (both.exit_code, "give --canary or --shadow" in both.output) == (2, True)
    assert (
        "shadow of 2 for 20% of entities, generation 2"
        in operator.run("promote", PIPELINE, "2", "--shadow", "0.2").output
    )
    assert "2 has a shadow of 20% already" in operator.run("promote", PIPELINE, "2", "--shadow", "0.2").output
    found = pointer(bucket)
    assert (found.version, found.challenger, found.shadow and found.shadow.version) == ("1", None, "2")
    assert (
        "canary of 2 for 20% of entities, generation 3"
        in operator.run("promote", PIPELINE, "2", "--canary", "0.2").output
    )
    assert (
        "shadow of 2 for 20% of entities, generation 4"
        in operator.run("promote", PIPELINE, "2", "--shadow", "0.2").output
    )
    shadowed(released, "1", "2", 120)
    seen = operator.run("promote", PIPELINE, "2", "--shadow", "0.2", "--patience", "1", "--wait")
    assert "2 was promoted: shadow of 2: 120 predictions of the challenger, 120 of the champion" in seen.output
    assert (seen.exit_code, pointer(bucket).version, pointer(bucket).shadow) == (0, "2", None)
    table = operator.run("history", PIPELINE).output
    assert all(text in table for text in ("shadow 20%", "canary 20%"))


def test_a_shadow_is_ended_by_a_rollback(operator: Operator, bucket: Bucket) -> None:
    operator.run("promote", PIPELINE, "1")
    operator.run("promote", PIPELINE, "2", "--shadow", "0.2")
    assert "1 is the champion, generation 3" in operator.run("rollback", PIPELINE).output
    assert pointer(bucket).shadow is None


@pytest.mark.parametrize("trial", ["--canary", "--shadow"])
def test_the_champion_is_not_tried_out_beside_itself(operator: Operator, trial: str) -> None:
    operator.run("promote", PIPELINE, "1")
    refused = operator.run("promote", PIPELINE, "1", trial, "0.2")
    assert (refused.exit_code, "1 is the champion already; try another release out" in refused.output) == (1, True)
    won = operator.run("promote", PIPELINE, "1", trial, "0.2", "--wait")  # as CD does again where it was interrupted
    assert (won.exit_code, "1 was promoted" in won.output) == (0, True)


def test_a_canary_that_is_rolled_back_ends_with_3(operator: Operator, released: Engine) -> None:
    operator.run("promote", PIPELINE, "1")
    operator.run("promote", PIPELINE, "2", "--canary", "0.25")
    served(released, "1", 300)
    served(released, "2", 120, shift=0.5)
    found = operator.run("promote", PIPELINE, "2", "--canary", "0.25", "--wait")
    assert (found.exit_code, "2 was rolled back: canary of 2: scores are apart" in found.output) == (
        commands.ROLLED_BACK,
        True,
    )
    rows = json.loads(operator.run("history", PIPELINE, "--json").output)
    assert (rows[0]["release_version"], rows[0]["share"], rows[0]["by"]) == ("1", 1, "ana")


def test_patience_ends_and_leaves_the_canary(operator: Operator) -> None:
    operator.run("promote", PIPELINE, "1")
    found = operator.run("promote", PIPELINE, "2", "--canary", "0.25", "--wait", "--patience", "0")
    assert found.exit_code == 1
    assert "waiting: 0 of 100 predictions" in found.output
    assert "it runs on" in found.output


def test_a_production_that_does_not_answer_is_said_so(tmp_path: Path) -> None:
    found = CliRunner().invoke(cli, ["history", PIPELINE, "--trainer-url", "http://127.0.0.1:9"])
    assert (found.exit_code, "trainer at http://127.0.0.1:9 does not answer" in found.output) == (1, True)
    nowhere = CliRunner().invoke(cli, ["history", PIPELINE, "--state-dir", str(tmp_path)])
    assert (nowhere.exit_code, "no stack was started" in nowhere.output) == (1, True)
