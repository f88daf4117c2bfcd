"""A shadow in the predictor, with releases and pointers of a real bucket, real servers and the Pub/Sub emulator."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient

from esteira.bucket import Bucket
from esteira.events import PredictionsServed, decode
from esteira.release import Challenger, pointer_path, release_path
from integration.predictor.test_process import server
from predictor.arms import takes_challenger
from predictor_processes import DEADLINE, WORKERS, Server, wait_until
from releases import BuiltRelease, build_release, raw_rows

__all__ = ["server"]

SHARE = 0.99
ENTITY = str(raw_rows(1)[0]["id"])
"""Of the one row that the server is asked about: of the shadow's share."""


class Log:
    """What is published, pulled from a subscription of its own."""

    def __init__(self, project: str, publisher: PublisherClient, subscriber: SubscriberClient) -> None:
        self._subscriber = subscriber
        self._name = f"projects/{project}/subscriptions/log"
        topic = f"projects/{project}/topics/predictions-served"
        publisher.create_topic(name=topic)
        subscriber.create_subscription(name=self._name, topic=topic)
        self.events: dict[str, PredictionsServed] = {}

    def ids(self, shadow: bool) -> Counter[str]:
        found = [event for event in self.events.values() if event.shadow == shadow]
        return Counter(str(prediction.id) for event in found for prediction in event.predictions)

    def pull_until(self, served: int, shadows: int = 0) -> None:
        deadline = time.monotonic() + DEADLINE
        while (self.ids(False).total() < served or self.ids(True).total() < shadows) and time.monotonic() < deadline:
            pulled = self._subscriber.pull(subscription=self._name, max_messages=100, timeout=10)
            for received in pulled.received_messages:
                attributes = dict(received.message.attributes)
                self.events[attributes["ce-id"]] = decode(PredictionsServed, received.message.data, attributes)


@pytest.fixture
def log(pubsub_project: str) -> Iterator[Log]:
    with PublisherClient() as publisher, SubscriberClient() as subscriber:
        yield Log(pubsub_project, publisher, subscriber)


@pytest.fixture
def shadowed(server: Server, bucket_name: str, pubsub_project: str, tmp_path: Path) -> Server:
    """A server each of whose workers has a champion and its shadow."""
    bucket = Bucket(bucket_name, pubsub_project)
    assert takes_challenger("v2", ENTITY, SHARE)
    built = build_release(tmp_path / "one", "v1"), build_release(tmp_path / "two", "v2", seed=5, sqlite=False)
    for one in built:
        one.upload(bucket)
    point(bucket, *built)
    await_shadow(server)
    return server


def point(bucket: Bucket, champion: BuiltRelease, tried: BuiltRelease) -> None:
    shadow = Challenger(version="v2", path=release_path("shop", "v2"), sha256=tried.sha256, share=SHARE)
    pointer = msgspec.structs.replace(champion.pointer(), shadow=shadow)
    bucket.write_if(pointer_path("shop"), msgspec.json.encode(pointer), 0)


def await_shadow(server: Server, times: int = 1) -> None:
    """Until each worker has it, and they listen; so often, where they were killed."""
    told = '"challenger":"v2"'
    wait_until(lambda: server.log.read_text().count(told) >= times * WORKERS and server.status() == 200)


def test_told_to_end_it_scores_the_shadows_that_wait_and_logs_them_beside_the_answers(
    shadowed: Server, log: Log
) -> None:
    answers = [shadowed.predict() for _ in range(60)]
    assert {answer["model_version"] for answer in answers} == {"v1"}
    shadowed.stop()
    log.pull_until(60, 60)
    assert log.ids(shadow=False) == log.ids(shadow=True) == Counter(list(shadowed.answered))
    assert {(event.model_version, event.shadow) for event in log.events.values()} == {("v1", False), ("v2", True)}


def test_a_worker_that_is_killed_loses_shadows_at_most_and_none_is_told_twice(shadowed: Server, log: Log) -> None:
    for _ in range(40):
        shadowed.predict()
    for worker in shadowed.workers():
        worker.kill()
    await_shadow(shadowed, 2)
    for _ in range(20):
        shadowed.predict()
    log.pull_until(40)  # of the spools that the killed left
    shadowed.stop()
    log.pull_until(60, 20)
    assert log.ids(shadow=False) == Counter(list(shadowed.answered))
    assert set(log.ids(shadow=True)) <= set(shadowed.answered)
    assert set(log.ids(shadow=True).values()) == {1}
