import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import psutil
import pytest
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient

from esteira.bucket import Bucket
from esteira.events import PredictionsServed, decode
from esteira_cli.stack import Stack
from predictor.server import SERVERS
from releases import build_release, raw_rows

DEADLINE = 40.0
WORKERS = 2
TURNED_AWAY = ("ConnectionResetError", "BrokenPipeError")


def wait_until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Server:
    """A real server with two workers."""

    def __init__(self, environ: dict[str, str], port: int, log: Path) -> None:
        self.url, self.log = f"http://127.0.0.1:{port}", log
        self.answered: dict[str, float] = {}
        argv = [sys.executable, "-m", "predictor.server"]
        with log.open("w") as file:
            self.process = subprocess.Popen(argv, env=environ, stdout=file, stderr=subprocess.STDOUT)

    def predict(self) -> dict[str, object]:
        body = json.dumps({"rows": raw_rows(1)}).encode()
        request = Request(f"{self.url}/pipelines/shop/predict", body, {"Content-Type": "application/json"})  # noqa: S310
        with urlopen(request, timeout=10) as answer:  # noqa: S310
            found: dict[str, object] = json.load(answer)
        for one in found["predictions"]:  # type: ignore[attr-defined]
            self.answered[one["prediction_id"]] = one["score"]
        return found

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=20)


@pytest.fixture(params=SERVERS)
def server(
    request: pytest.FixtureRequest, infrastructure: Stack, bucket_name: str, pubsub_project: str, tmp_path: Path
) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environ = {
        **os.environ,
        "SERVER": request.param,
        "PORT": str(port),
        "HOST": "127.0.0.1",
        "WEB_CONCURRENCY": str(WORKERS),
        "GOOGLE_CLOUD_PROJECT": pubsub_project,
        "BUCKET": bucket_name,
        "PUSH_AUTHENTICATION": "none",
        "CACHE_DIR": str(tmp_path / "cache"),
        "POINTER_POLL_SECONDS": "0.2",
        "LOG_FLUSH_SECONDS": "60",
        "OMP_NUM_THREADS": "1",
    }
    server = Server(environ, port, tmp_path / "log")
    yield server
    if server.process.poll() is None:
        server.stop()
    print(server.log.read_text())  # shown where the test failed


def test_follows_the_pointer_in_both_workers_and_flushes_when_it_ends(
    server: Server, bucket_name: str, pubsub_project: str, tmp_path: Path
) -> None:
    topic, subscription = (
        f"projects/{pubsub_project}/{kind}" for kind in ("topics/predictions-served", "subscriptions/log")
    )
    with PublisherClient() as publisher, SubscriberClient() as subscriber:
        publisher.create_topic(name=topic)
        subscriber.create_subscription(name=subscription, topic=topic)
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
        assert read_log(subscriber, subscription, len(server.answered)) == server.answered


def read_log(subscriber: SubscriberClient, subscription: str, number: int) -> dict[str, float]:
    """Id and score of the predictions that were logged, once there are so many."""
    logged: dict[str, float] = {}
    deadline = time.monotonic() + DEADLINE
    while len(logged) < number and time.monotonic() < deadline:
        pulled = subscriber.pull(subscription=subscription, max_messages=100, timeout=10)
        for received in pulled.received_messages:
            event = decode(PredictionsServed, received.message.data, dict(received.message.attributes))
            logged |= {str(prediction.id): prediction.score for prediction in event.predictions}
    return logged


class Clients:
    """Ask without a pause, on a new connection each time, until nobody listens any more."""

    def __init__(self, server: Server, number: int) -> None:
        self.broken: list[str] = []
        self._server = server
        self._threads = [threading.Thread(target=self._ask) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while True:
            try:
                self._server.predict()
            except URLError as error:
                if not isinstance(error.reason, ConnectionRefusedError):
                    self.broken.append(repr(error.reason))
                return
            except OSError as error:
                self.broken.append(repr(error))
                return

    def join(self) -> None:
        """Waits until all have ended."""
        for thread in self._threads:
            thread.join(DEADLINE)


def test_told_to_end_under_load_it_answers_and_logs_all_that_it_accepted(
    server: Server, bucket_name: str, pubsub_project: str, tmp_path: Path
) -> None:
    topic, subscription = (
        f"projects/{pubsub_project}/{kind}" for kind in ("topics/predictions-served", "subscriptions/log")
    )
    with PublisherClient() as publisher, SubscriberClient() as subscriber:
        publisher.create_topic(name=topic)
        subscriber.create_subscription(name=subscription, topic=topic)
        built = build_release(tmp_path / "release")
        bucket = Bucket(bucket_name, pubsub_project)
        built.upload(bucket)
        built.promote(bucket)
        wait_until(lambda: is_ready(server))
        clients = Clients(server, 8)
        wait_until(lambda: len(server.answered) > 200)
        server.stop()
        clients.join()
        # Who was still waiting to be accepted is turned away; whoever was accepted has an answer, and the log has it.
        assert {what for what in clients.broken if not what.startswith(TURNED_AWAY)} == set()
        assert read_log(subscriber, subscription, len(server.answered)) == server.answered


def is_ready(server: Server) -> bool:
    """Whether each worker has its release."""
    return server.log.read_text().count("release in service") == WORKERS


def test_workers_end_when_the_first_process_is_killed(server: Server, tmp_path: Path, bucket_name: str) -> None:
    built = build_release(tmp_path / "release")
    bucket = Bucket(bucket_name, "p")
    built.upload(bucket)
    built.promote(bucket)
    wait_until(lambda: is_ready(server))
    workers = psutil.Process(server.process.pid).children(recursive=True)
    server.process.kill()
    server.process.wait()
    wait_until(lambda: not [worker for worker in workers if worker.is_running() and worker.status() != "zombie"])
    with pytest.raises(URLError):
        server.predict()


def test_a_worker_that_is_killed_is_replaced_and_what_it_answered_is_logged(
    server: Server, bucket_name: str, pubsub_project: str, tmp_path: Path
) -> None:
    topic, subscription = (
        f"projects/{pubsub_project}/{kind}" for kind in ("topics/predictions-served", "subscriptions/log")
    )
    with PublisherClient() as publisher, SubscriberClient() as subscriber:
        publisher.create_topic(name=topic)
        subscriber.create_subscription(name=subscription, topic=topic)
        built = build_release(tmp_path / "release")
        bucket = Bucket(bucket_name, pubsub_project)
        built.upload(bucket)
        built.promote(bucket)
        wait_until(lambda: is_ready(server))
        for _ in range(40):
            server.predict()
        for worker in psutil.Process(server.process.pid).children():
            worker.kill()
        wait_until(lambda: server.log.read_text().count("release in service") == 2 * WORKERS)
        assert read_log(subscriber, subscription, len(server.answered)) == server.answered
