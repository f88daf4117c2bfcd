"""`python -m esteira.topology` makes topics, subscriptions and the bucket, and makes them again when they are lost."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from esteira import topology
from esteira.bucket import Bucket
from esteira_cli.stack import Stack

COMMAND = [sys.executable, "-m", "esteira.topology"]


@pytest.fixture
def environ(infrastructure: Stack, pubsub_project: str) -> dict[str, str]:
    """What the command is told, for a project and a bucket of the test's own."""
    hearers = {subscription.hearer for subscription in topology.SUBSCRIPTIONS}
    return {
        **os.environ,
        "GOOGLE_CLOUD_PROJECT": pubsub_project,
        "BUCKET": f"bucket-{uuid4().hex[:12]}",
        "PUBSUB_EMULATOR_HOST": infrastructure.addresses()["pubsub"],
        "STORAGE_EMULATOR_HOST": infrastructure.addresses()["bucket"],
        "ENDPOINTS": ",".join(f"{name}=http://{name}.test:8080" for name in hearers),
    }


@pytest.fixture
def clients(environ: dict[str, str]) -> Iterator[tuple[Any, Any]]:
    """A publisher and a subscriber."""
    with topology.emulator_clients(environ["PUBSUB_EMULATOR_HOST"]) as clients:
        yield clients


def test_everything_is_there_afterwards(environ: dict[str, str], clients: tuple[Any, Any]) -> None:
    assert "topology applied" in _messages(_run(environ))
    assert _topics(environ, clients) == {
        *topology.TOPICS,
        *map(topology.dead_letter_topic, topology.TOPICS),
    }
    pushes = _pushes(environ, clients)
    assert pushes["raw-data-uploaded.etl"] == "http://etl.test:8080/events/raw-data-uploaded"
    assert {name for name, endpoint in pushes.items() if not endpoint} == {f"{topic}.dead" for topic in topology.TOPICS}
    bucket = Bucket(environ["BUCKET"], environ["GOOGLE_CLOUD_PROJECT"], environ["STORAGE_EMULATOR_HOST"])
    bucket.upload_once("raw/x", b"content")
    assert bucket.read("raw/x") == b"content"


def test_a_second_time_it_changes_nothing(environ: dict[str, str]) -> None:
    _run(environ)
    assert _messages(_run(environ)) == ["topology applied"]


def test_pushes_follow_a_service_that_moved(environ: dict[str, str], clients: tuple[Any, Any]) -> None:
    _run(environ)
    moved = environ["ENDPOINTS"].replace("http://etl.test", "http://moved.test")
    assert _messages(_run({**environ, "ENDPOINTS": moved})) == ["push changed", "topology applied"]
    assert _pushes(environ, clients)["raw-data-uploaded.etl"] == "http://moved.test:8080/events/raw-data-uploaded"


def test_pushes_carry_a_token_once_an_account_is_named(environ: dict[str, str], clients: tuple[Any, Any]) -> None:
    _run(environ)
    with_account = {**environ, "PUSH_SERVICE_ACCOUNT": "push@example.test"}
    assert _messages(_run(with_account)).count("push changed") == len(topology.SUBSCRIPTIONS)
    assert _messages(_run(with_account)) == ["topology applied"]
    (found,) = [each for each in _subscriptions(environ, clients) if each.name.endswith("/dataset-prepared.trainer")]
    assert found.push_config.oidc_token.service_account_email == "push@example.test"
    assert found.push_config.oidc_token.audience == "http://trainer.test:8080"


def test_what_is_lost_is_made_again(environ: dict[str, str], clients: tuple[Any, Any], tmp_path: Path) -> None:
    heartbeat = tmp_path / "applied"
    options = ["--every", "0.1", "--heartbeat", str(heartbeat)]
    with subprocess.Popen([*COMMAND, *options], env=environ, stdout=subprocess.DEVNULL) as process:
        _await(heartbeat.exists)
        name = f"projects/{environ['GOOGLE_CLOUD_PROJECT']}/topics/retrain-requested"
        clients[0].delete_topic(request={"topic": name})
        _await(lambda: "retrain-requested" in _topics(environ, clients))
        process.terminate()
        assert process.wait(10) == 0


def test_an_outage_is_told_and_ends_the_heartbeat(environ: dict[str, str], tmp_path: Path) -> None:
    heartbeat, log = tmp_path / "applied", tmp_path / "log"
    unreachable = {**environ, "PUBSUB_EMULATOR_HOST": "127.0.0.1:1"}
    options = ["--every", "0.1", "--heartbeat", str(heartbeat)]
    with log.open("wb") as file, subprocess.Popen([*COMMAND, *options], env=unreachable, stdout=file) as process:
        _await(lambda: "Pub/Sub at 127.0.0.1:1" in log.read_text())
        assert process.poll() is None
        process.terminate()
        assert process.wait(10) == 0
    assert not heartbeat.exists()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [("ENDPOINTS", "", "ENDPOINTS is not set"), ("PUBSUB_EMULATOR_HOST", "127.0.0.1:1", "Pub/Sub at 127.0.0.1:1")],
)
def test_what_is_wrong_is_said_in_one_line(environ: dict[str, str], name: str, value: str, told: str) -> None:
    done = _run({**environ, name: value}, code=1)
    (line,) = done.stdout.splitlines()
    assert told in json.loads(line)["error"]
    assert "Traceback" not in done.stderr


def _run(environ: dict[str, str], code: int = 0) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(COMMAND, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def _messages(done: "subprocess.CompletedProcess[str]") -> list[str]:
    return [json.loads(line)["message"] for line in done.stdout.splitlines()]


def _topics(environ: dict[str, str], clients: tuple[Any, Any]) -> set[str]:
    found = clients[0].list_topics(request={"project": f"projects/{environ['GOOGLE_CLOUD_PROJECT']}"})
    return {topic.name.rsplit("/", 1)[1] for topic in found}


def _subscriptions(environ: dict[str, str], clients: tuple[Any, Any]) -> list[Any]:
    return list(clients[1].list_subscriptions(request={"project": f"projects/{environ['GOOGLE_CLOUD_PROJECT']}"}))


def _pushes(environ: dict[str, str], clients: tuple[Any, Any]) -> dict[str, str]:
    found = _subscriptions(environ, clients)
    return {each.name.rsplit("/", 1)[1]: each.push_config.push_endpoint for each in found}


def _await(met: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)
