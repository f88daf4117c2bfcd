"""The store, on a clock of its own."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.pubsub_v1 import types

from esteira_cli.pubsub.database import Database
from esteira_cli.pubsub.definitions import parse_subscription, read_subscription
from esteira_cli.pubsub.exceptions import NotFound, StateLocked
from esteira_cli.pubsub.faults import FaultSwitch
from esteira_cli.pubsub.records import PUSH_HOLDER, Content, Delivery, Lease, Subscription
from esteira_cli.pubsub.resources import Resources
from esteira_cli.pubsub.store import Store
from esteira_cli.pubsub.wakeups import Wakeups

TOPIC = "projects/demo/topics/orders"
DEAD_TOPIC = "projects/demo/topics/orders-dead"


class Bench:
    """A store whose time stands still unless moved."""

    def __init__(self, folder: Path) -> None:
        self.now = 1_000_000.0
        self._folder = folder
        self._open()

    def _open(self) -> None:
        self._database = Database(self._folder)
        self.resources = Resources(self._database, parse_subscription)
        self.store = Store(self._database, self.resources, Wakeups(), FaultSwitch(), lambda: self.now)

    def reopen(self) -> None:
        self.close()
        self._open()

    def close(self) -> None:
        self._database.close()

    def subscribe(self, topic: str = TOPIC, name: str = "orders-etl", **options: object) -> Subscription:
        if not self.resources.has_topic(topic):
            self.resources.create_topic(topic, b"")
        message = types.Subscription(name=f"projects/demo/subscriptions/{name}", topic=topic, **options)
        subscription = read_subscription(types.Subscription.pb(message))
        self.resources.create_subscription(subscription)
        return subscription

    def publish(self, *payloads: bytes) -> None:
        self.store.publish(TOPIC, [Content(data) for data in payloads])

    def claim(self, subscription: Subscription, limit: int = 10) -> list[Delivery]:
        return self.store.claim(subscription, limit, "pull", 10)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def payloads(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.content.data for delivery in deliveries]


def test_leased_message_is_due_again_when_its_lease_ends(bench: Bench) -> None:
    subscription = bench.subscribe()
    bench.publish(b"x")
    bench.claim(subscription)
    bench.now += 9.9
    assert bench.claim(subscription) == []
    bench.now += 0.2
    assert [delivery.lease.attempt for delivery in bench.claim(subscription)] == [2]


def test_lease_of_an_earlier_attempt_acknowledges_nothing(bench: Bench) -> None:
    subscription = bench.subscribe()
    bench.publish(b"x")
    (late,) = bench.claim(subscription)
    bench.now += 11
    bench.claim(subscription)
    bench.store.acknowledge(subscription.name, [late.lease])
    bench.now += 11
    assert payloads(bench.claim(subscription)) == [b"x"]


def test_released_message_waits_for_its_backoff(bench: Bench) -> None:
    subscription = bench.subscribe(retry_policy={"minimum_backoff": "2s", "maximum_backoff": "5s"})
    bench.publish(b"x")
    waits = []
    for _ in range(4):
        (delivery,) = bench.claim(subscription)
        bench.store.release(subscription, [delivery.lease])
        waits.append(bench.store.next_due(subscription.name))
        bench.now += waits[-1]
    assert waits == [2, 4, 5, 5]


def test_push_lease_ends_with_the_process_and_pull_lease_does_not(bench: Bench) -> None:
    subscription = bench.subscribe()
    bench.publish(b"pushed", b"pulled")
    bench.store.claim(subscription, 1, PUSH_HOLDER, math.inf)
    (pulled,) = bench.claim(subscription)
    bench.now += 5
    bench.reopen()
    assert payloads(bench.claim(subscription)) == [b"pushed"]
    bench.store.acknowledge(subscription.name, [pulled.lease])
    bench.now += 100
    assert payloads(bench.claim(subscription)) == [b"pushed"]


def test_next_try_survives_a_restart(bench: Bench) -> None:
    subscription = bench.subscribe(retry_policy={"minimum_backoff": "60s"})
    bench.publish(b"x")
    (delivery,) = bench.store.claim(subscription, 1, PUSH_HOLDER, math.inf)
    bench.store.release(subscription, [delivery.lease])
    bench.reopen()
    assert bench.store.next_due(subscription.name) == 60


def test_expired_leases_lead_to_the_dead_letter_topic(bench: Bench) -> None:
    dead = bench.subscribe(DEAD_TOPIC, "orders-dead")
    policy = {"dead_letter_topic": DEAD_TOPIC, "max_delivery_attempts": 5}
    subscription = bench.subscribe(dead_letter_policy=policy)
    bench.publish(b"poison")
    for _ in range(5):
        assert payloads(bench.claim(subscription)) == [b"poison"]
        bench.now += 11
    assert bench.claim(subscription) == []
    (letter,) = bench.claim(dead)
    assert letter.content.attributes["CloudPubSubDeadLetterSourceDeliveryCount"] == "5"


def test_message_stays_while_its_dead_letter_topic_is_gone(bench: Bench) -> None:
    bench.resources.create_topic(DEAD_TOPIC, b"")
    policy = {"dead_letter_topic": DEAD_TOPIC, "max_delivery_attempts": 5}
    subscription = bench.subscribe(dead_letter_policy=policy)
    bench.publish(b"poison")
    bench.resources.delete_topic(DEAD_TOPIC, [])
    for _ in range(7):
        assert payloads(bench.claim(subscription)) == [b"poison"]
        bench.now += 11


def test_message_past_the_retention_is_dropped(bench: Bench) -> None:
    subscription = bench.subscribe(message_retention_duration="600s")
    bench.publish(b"old")
    bench.now += 601
    assert bench.claim(subscription) == []
    assert bench.store.next_due(subscription.name) == math.inf


def test_publishing_to_an_unknown_topic_is_refused(bench: Bench) -> None:
    with pytest.raises(NotFound, match="create it first"):
        bench.publish(b"x")


def test_state_folder_has_one_owner(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(StateLocked, match="--state-dir"):
        Database(tmp_path)


@pytest.mark.parametrize("text", ["", "1.2", "1.2.x", "1.2.3.4", "1.-2.3", "1.2.³", "9" * 30 + ".1.1"])
def test_foreign_ack_ids_are_no_leases(text: str) -> None:
    assert Lease.parse(text) is None


def test_ack_id_names_its_lease() -> None:
    assert Lease.parse(Lease(7, 1, 3).ack_id()) == Lease(7, 1, 3)
