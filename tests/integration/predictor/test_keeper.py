"""The keeper's life beside workers that answer: killed, doubled, orphaned, cut off."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import psutil
import pytest
from google.api_core.exceptions import DeadlineExceeded
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.types import PubsubMessage

from esteira.bucket import Bucket
from esteira.events import PredictionsServed, decode
from esteira_cli.stack import Stack
from predictor.server import SERVERS
from predictor_processes import DEADLINE, WORKERS, Clients, Server, environment, read_log, wait_until
from releases import build_release

CLOUD_RUN_S = 10.0
NOWHERE = "http://127.0.0.1:9"


class Topic:
    """What is said of predictions."""

    def __init__(self, project: str, publisher: PublisherClient, subscriber: SubscriberClient) -> None:
        self._subscriber = subscriber
        topic = f"projects/{project}/topics/predictions-served"
        self._subscription = f"projects/{project}/subscriptions/log"
        publisher.create_topic(name=topic)
        subscriber.create_subscription(name=self._subscription, topic=topic)

    def read(self, number: int) -> dict[str, float]:
        """Ids and scores, once there are so many."""
        return read_log(self._subscriber, self._subscription, number)

    def read_events(self, predictions: int) -> list[tuple[str, list[str]]]:
        """The id of each event with those of its predictions: so many, and what comes within another second."""
        found: list[tuple[str, list[str]]] = []
        deadline = time.monotonic() + DEADLINE
        while True:
            pulled = self._pull()
            found += map(_ids_of, pulled)
            if not pulled and sum(len(ids) for _, ids in found) >= predictions:
                return found
            assert time.monotonic() < deadline, found

    def _pull(self) -> list[PubsubMessage]:
        with suppress(DeadlineExceeded):
            pulled = self._subscriber.pull(subscription=self._subscription, max_messages=100, timeout=1)
            acks = [received.ack_id for received in pulled.received_messages]
            if acks:
                self._subscriber.acknowledge(subscription=self._subscription, ack_ids=acks)
            return [received.message for received in pulled.received_messages]
        return []


def _ids_of(message: PubsubMessage) -> tuple[str, list[str]]:
    event = decode(PredictionsServed, message.data, dict(message.attributes))
    return message.attributes["ce-id"], [str(prediction.id) for prediction in event.predictions]


@pytest.fixture
def topic(infrastructure: Stack, pubsub_project: str) -> Iterator[Topic]:
    with PublisherClient() as publisher, SubscriberClient() as subscriber:
        yield Topic(pubsub_project, publisher, subscriber)


@pytest.fixture
def bucket(infrastructure: Stack, bucket_name: str, pubsub_project: str, tmp_path: Path) -> Bucket:
    """Holds a release that serves."""
    bucket = Bucket(bucket_name, pubsub_project)
    built = build_release(tmp_path / "release")
    built.upload(bucket)
    built.promote(bucket)
    return bucket


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, bucket: Bucket, pubsub_project: str, tmp_path: Path) -> Iterator[Server]:
    server = Server(environment(bucket.name, pubsub_project, tmp_path) | {"SERVER": request.param}, tmp_path / "log")
    yield server
    if server.process.poll() is None:
        server.stop()
    print(server.log.read_text())  # shown where the test failed


@pytest.mark.parametrize("server", SERVERS[:1], indirect=True)
def test_a_keeper_that_is_killed_is_replaced_while_workers_answer(
    server: Server, bucket: Bucket, topic: Topic, tmp_path: Path
) -> None:
    wait_until(server.is_ready)
    clients = Clients(server, 4)
    for _ in range(2):
        keeper = server.keeper()
        assert keeper is not None
        keeper.kill()
        wait_until(lambda dead=keeper: server.keeper() not in (None, dead))  # type: ignore[misc]
    assert server.log.read_text().count("keeper ended; it is started again") == 2
    newer = build_release(tmp_path / "newer", "v2", seed=2)
    newer.upload(bucket)
    newer.promote(bucket, 2)
    wait_until(lambda: server.log.read_text().count('"version":"v2"') == WORKERS)
    server.stop()
    clients.join()
    assert topic.read(len(server.answered)) == server.answered


@pytest.mark.parametrize("server", SERVERS[:1], indirect=True)
def test_without_a_bucket_a_new_worker_serves_and_a_new_container_does_not(
    server: Server, bucket: Bucket, pubsub_project: str, tmp_path: Path
) -> None:
    wait_until(server.is_ready)
    stopped = server.keeper()
    assert stopped is not None
    stopped.suspend()  # to it the bucket is away
    for worker in server.workers():
        worker.kill()
    wait_until(lambda: server.is_ready(2))
    assert server.predict()["model_version"] == "v1"
    environ = environment(bucket.name, pubsub_project, tmp_path) | {"STORAGE_EMULATOR_HOST": NOWHERE}
    new = Server(environ, tmp_path / "new-log")
    try:
        wait_until(lambda: new.status() is not None)
        assert new.status() == 503
    finally:
        new.stop()
    stopped.resume()


def test_when_the_first_process_is_killed_all_end_and_nothing_is_lost(server: Server, topic: Topic) -> None:
    wait_until(server.is_ready)
    clients = Clients(server, 4)
    wait_until(lambda: len(server.answered) > 100)
    processes = psutil.Process(server.process.pid).children(recursive=True)
    server.process.kill()
    server.process.wait()
    clients.join()
    _, left = psutil.wait_procs(processes, timeout=CLOUD_RUN_S + 2)
    assert left == []
    assert topic.read(len(server.answered)) == server.answered


def test_signals_to_the_whole_group_end_the_keeper_last(server: Server, topic: Topic) -> None:
    wait_until(server.is_ready)
    for _ in range(20):
        server.predict()
    keeper = server.keeper()
    assert keeper is not None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        keeper.send_signal(number)
    assert server.stop() < CLOUD_RUN_S
    assert server.process.returncode == 0
    assert not keeper.is_running()
    assert topic.read(len(server.answered)) == server.answered
    assert "predictions lost" not in server.log.read_text()
    assert "keeper ended" not in server.log.read_text()


@pytest.mark.parametrize("server", SERVERS[:1], indirect=True)
def test_what_pubsub_does_not_take_in_time_is_told_and_left_for_the_next(
    server: Server, bucket: Bucket, pubsub_project: str, tmp_path: Path
) -> None:
    """The topic is missing: Pub/Sub does not take it."""
    wait_until(server.is_ready)
    for _ in range(20):
        server.predict()
    assert server.stop() < CLOUD_RUN_S
    assert "predictions lost at the end, unless the spool outlives the container" in server.log.read_text()
    assert '"pending":20' in server.log.read_text()
    with PublisherClient() as publisher, SubscriberClient() as subscriber:
        topic = Topic(pubsub_project, publisher, subscriber)
        next_one = Server(environment(bucket.name, pubsub_project, tmp_path), tmp_path / "next-log")
        assert topic.read(20) == server.answered
        next_one.stop()


def test_of_two_predictors_that_share_their_spools_one_publishes_and_the_other_goes_on(
    bucket: Bucket, topic: Topic, pubsub_project: str, tmp_path: Path
) -> None:
    environ = environment(bucket.name, pubsub_project, tmp_path) | {"LOG_FLUSH_SECONDS": "0.1"}
    first = Server(environ, tmp_path / "first-log")
    wait_until(first.is_ready)
    first.predict()
    published = topic.read_events(1)  # it holds the lock
    second = Server(environ, tmp_path / "second-log")
    wait_until(second.is_ready)
    for _ in range(5):
        first.predict()
        second.predict()
        published += topic.read_events(2)
    assert first.stop() < CLOUD_RUN_S
    for _ in range(20):
        second.predict()
    published += topic.read_events(20)
    assert second.stop() < CLOUD_RUN_S
    published += topic.read_events(0)
    ids = [prediction for _, predictions in published for prediction in predictions]
    assert sorted(ids) == sorted({**first.answered, **second.answered})
    assert len({event for event, _ in published}) == len(published)
    assert list((tmp_path / "cache" / "spool").glob("*/[!.]*")) == []


@pytest.mark.parametrize("server", SERVERS[:1], indirect=True)
def test_a_worker_is_told_what_the_keeper_published(server: Server, topic: Topic) -> None:
    wait_until(server.is_ready)
    for _ in range(10):
        server.predict()
    for worker in server.workers():
        worker.kill()
    assert topic.read(10) == server.answered

    def published() -> bool:
        try:
            told = server.describe()["log"]
        except URLError:
            return False
        return told["keeper"]["published"] == 10 and told["added"] == 0  # type: ignore[index]

    wait_until(published)


@pytest.mark.parametrize("server", SERVERS[:1], indirect=True)
def test_a_release_that_was_damaged_after_it_was_fetched_is_fetched_again(server: Server, tmp_path: Path) -> None:
    wait_until(server.is_ready)
    (model,) = (tmp_path / "cache").glob("*/model.onnx")
    model.write_bytes(b"damaged")
    for worker in server.workers():
        worker.kill()
    wait_until(lambda: server.is_ready(2))
    assert "release refused" not in server.log.read_text()
    assert model.read_bytes() != b"damaged"


def test_a_hint_reaches_every_worker(bucket: Bucket, pubsub_project: str, tmp_path: Path) -> None:
    environ = environment(bucket.name, pubsub_project, tmp_path) | {"POINTER_POLL_SECONDS": "600"}
    server = Server(environ, tmp_path / "log")
    try:
        wait_until(server.is_ready)
        newer = build_release(tmp_path / "newer", "v2", seed=2)
        newer.upload(bucket)
        newer.promote(bucket, 2)
        body = b'{"message": {"messageId": "1", "data": "eyJwaXBlbGluZSI6InNob3AiLCJ2ZXJzaW9uIjoidjIiLCJnZW5lcmF0aW9u'
        body += b'IjoyLCJwcmV2aW91cyI6bnVsbCwicmVhc29uIjoiciJ9", "attributes": {}}, "subscription": "s"}'
        with urlopen(Request(f"{server.url}/events/model-promoted", body), timeout=10) as answer:  # noqa: S310
            assert answer.status == 204
        wait_until(lambda: server.log.read_text().count('"version":"v2"') == WORKERS)
    finally:
        server.stop()


def test_an_admin_sees_what_the_bucket_says_now(bucket: Bucket, pubsub_project: str, tmp_path: Path) -> None:
    keys = f"ops {hashlib.sha256(b'secret').hexdigest()} admin"
    environ = environment(bucket.name, pubsub_project, tmp_path) | {"POINTER_POLL_SECONDS": "600", "API_KEYS": keys}
    server = Server(environ | {"WEB_CONCURRENCY": "1"}, tmp_path / "log")
    try:
        wait_until(lambda: server.log.read_text().count("release in service") == 1 and server.status() == 200)
        newer = build_release(tmp_path / "newer", "v2", seed=2)
        newer.upload(bucket)
        newer.promote(bucket, 2)
        refresh = Request(f"{server.url}/admin/refresh", b"", {"X-Api-Key": "secret"})  # noqa: S310
        with urlopen(refresh, timeout=20) as answer:  # noqa: S310
            assert json.load(answer)["pipelines"] == [{"pipeline": "shop", "version": "v2", "generation": 2}]
    finally:
        server.stop()


def test_wrong_settings_end_everything_and_say_what_is_wrong(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in ("BUCKET", "GOOGLE_CLOUD_PROJECT")}
    ran = subprocess.run(
        [sys.executable, "-m", "predictor.server"], env=environ, capture_output=True, text=True, timeout=40, check=False
    )
    assert ran.returncode != 0
    assert "BUCKET is not set" in ran.stderr
