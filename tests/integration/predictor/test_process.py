import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.error import URLError

import psutil
import pytest
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient

from esteira.bucket import Bucket
from esteira_cli.stack import Stack
from predictor.server import SERVERS
from predictor_processes import Clients, KeptClients, Server, environment, read_log, wait_until
from releases import build_release

Logged = Callable[[int], dict[str, float]]


@pytest.fixture
def logged(infrastructure: Stack, pubsub_project: str) -> Iterator[Logged]:
    """Id and score of so many predictions that were published."""
    topic, subscription = (
        f"projects/{pubsub_project}/{kind}" for kind in ("topics/predictions-served", "subscriptions/log")
    )
    with PublisherClient() as publisher, SubscriberClient() as subscriber:
        publisher.create_topic(name=topic)
        subscriber.create_subscription(name=subscription, topic=topic)
        yield partial(read_log, subscriber, subscription)


@pytest.fixture(params=SERVERS)
def server(
    request: pytest.FixtureRequest, infrastructure: Stack, bucket_name: str, pubsub_project: str, tmp_path: Path
) -> Iterator[Server]:
    environ = environment(bucket_name, pubsub_project, tmp_path) | {"SERVER": request.param}
    server = Server(environ, tmp_path / "log")
    yield server
    if server.process.poll() is None:
        server.stop()
    print(server.log.read_text())  # shown where the test failed


def test_follows_the_pointer_in_both_workers_and_flushes_when_it_ends(
    logged: Logged, server: Server, bucket_name: str, pubsub_project: str, tmp_path: Path
) -> None:
    bucket = Bucket(bucket_name, pubsub_project)
    for generation in (1, 2):
        built = build_release(tmp_path / str(generation), f"v{generation}")
        built.upload(bucket)
        built.promote(bucket, generation)
        row: list[bool] = []

        def is_everywhere(wanted: str = f"v{generation}", row: list[bool] = row) -> bool:
            try:
                answer = server.predict()
            except URLError:  # not up, or this worker has not seen its first pointer
                return False
            row.append(answer["model_version"] == wanted)
            return len(row) >= 20 and all(row[-20:])

        wait_until(is_everywhere)
    server.stop()
    assert logged(len(server.answered)) == server.answered


@pytest.mark.parametrize("kind", [Clients, KeptClients])
def test_told_to_end_under_load_it_answers_and_logs_whatever_was_sent(
    kind: type[Clients], logged: Logged, server: Server, bucket_name: str, pubsub_project: str, tmp_path: Path
) -> None:
    built = build_release(tmp_path / "release")
    bucket = Bucket(bucket_name, pubsub_project)
    built.upload(bucket)
    built.promote(bucket)
    wait_until(server.is_ready)
    clients = kind(server, 8)
    wait_until(lambda: min(clients.answers) > 20)
    server.stop()
    clients.join()
    assert clients.broken == []
    assert server.process.returncode == 0
    assert logged(len(server.answered)) == server.answered


def test_workers_end_when_the_first_process_is_killed(server: Server, tmp_path: Path, bucket_name: str) -> None:
    built = build_release(tmp_path / "release")
    bucket = Bucket(bucket_name, "p")
    built.upload(bucket)
    built.promote(bucket)
    wait_until(server.is_ready)
    workers = psutil.Process(server.process.pid).children(recursive=True)
    server.process.kill()
    server.process.wait()
    wait_until(lambda: not [worker for worker in workers if worker.is_running() and worker.status() != "zombie"])
    with pytest.raises(URLError):
        server.predict()


def test_a_worker_that_is_killed_is_replaced_and_what_it_answered_is_logged(
    logged: Logged, server: Server, bucket_name: str, pubsub_project: str, tmp_path: Path
) -> None:
    built = build_release(tmp_path / "release")
    bucket = Bucket(bucket_name, pubsub_project)
    built.upload(bucket)
    built.promote(bucket)
    wait_until(server.is_ready)
    for _ in range(40):
        server.predict()
    for worker in server.workers():
        worker.kill()
    wait_until(lambda: server.is_ready(2))
    assert logged(len(server.answered)) == server.answered


def test_workers_that_are_replaced_leave_connections_to_those_that_come(
    logged: Logged, server: Server, bucket_name: str, pubsub_project: str, tmp_path: Path
) -> None:
    built = build_release(tmp_path / "release")
    bucket = Bucket(bucket_name, pubsub_project)
    built.upload(bucket)
    built.promote(bucket)
    wait_until(server.is_ready)
    before = server.workers()
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: not any(worker.is_running() for worker in before))
    wait_until(lambda: server.is_ready(2))
    for _ in range(20):
        server.predict()
    server.stop()
    assert logged(len(server.answered)) == server.answered
