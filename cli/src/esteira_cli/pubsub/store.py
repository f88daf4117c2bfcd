"""The messages: published, leased, acknowledged, retried, dead-lettered. Every step is one committed transaction."""

import json
import logging
import math
import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence

from esteira_cli.pubsub.database import Database
from esteira_cli.pubsub.envelope import dead_letter_attributes
from esteira_cli.pubsub.faults import FaultSwitch
from esteira_cli.pubsub.records import PUSH_HOLDER, Content, Delivery, Lease, Subscription
from esteira_cli.pubsub.resources import Resources
from esteira_cli.pubsub.wakeups import Wakeups

logger = logging.getLogger(__name__)

BATCH_BYTES = 10_000_000
"""A pull answer stops growing at this size."""

LEASED = "subscription = ? AND message_id = ? AND copy = ? AND attempts = ? AND holder IS NOT NULL"


class Store:
    """Keeps each message until every subscription has acknowledged it. Delivers at least once.

    A delivery row is due at `available_at`. Claiming it counts the attempt, names the holder and moves
    `available_at` behind the lease: an expired lease needs no sweeper, it simply becomes due again.
    """

    def __init__(
        self,
        database: Database,
        resources: Resources,
        wakeups: Wakeups,
        faults: FaultSwitch,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._resources = resources
        self._wakeups = wakeups
        self._faults = faults
        self._clock = clock
        self._chance = random.Random()  # noqa: S311 - draws faults, no secrets
        self._release_push_leases()

    def publish(self, topic: str, contents: Sequence[Content]) -> list[str]:
        """Stores messages for each subscription of `topic` and returns their ids; returns after the commit.

        Raises:
            NotFound: no such topic.
        """
        self._resources.topic(topic)
        with self._database.transaction() as connection:
            subscribers = _subscribers(connection, topic)
            ids = [self._insert(connection, subscribers, content) for content in contents]
            connection.execute("UPDATE topics SET published = published + ? WHERE name = ?", (len(ids), topic))
        self._wakeups.notify(subscribers)
        return [str(message_id) for message_id in ids]

    def claim(self, subscription: Subscription, limit: int, holder: str, lease_s: float) -> list[Delivery]:
        """Leases up to `limit` due messages to `holder`, the longest waiting first.

        Messages that have used up their attempts go to the dead-letter topic instead, those past the retention
        of the subscription are dropped. A lease with `lease_s` infinite ends only by `acknowledge`, `release`
        or the end of this process.
        """
        now = self._clock()
        claimed: list[Delivery] = []
        woken: set[str] = set()
        with self._database.transaction() as connection:
            for row in _due(connection, subscription.name, now, limit):
                if row["publish_time"] < now - subscription.retention_s:
                    _remove(connection, subscription.name, row["message_id"], row["copy"])
                elif subscription.exhausted(row["attempts"]) and _can_dead_letter(connection, subscription):
                    woken |= self._dead_letter(connection, subscription, row)
                else:
                    claimed.append(_lease(connection, subscription, row, holder, now + lease_s))
            _count(connection, subscription.name, "delivered", len(claimed))
        self._wakeups.notify(woken)
        return claimed

    def acknowledge(self, subscription: str, leases: Iterable[Lease]) -> None:
        """Ends leases with success. A lease that is no longer held is ignored, as Pub/Sub does."""
        with self._database.transaction() as connection:
            acked = sum(self._acknowledge(connection, subscription, lease) for lease in leases)
            _count(connection, subscription, "acked", acked)
        self._wakeups.notify([subscription])

    def extend(self, subscription: Subscription, leases: Iterable[Lease], lease_s: float) -> None:
        """Makes leases end `lease_s` from now."""
        now = self._clock()
        with self._database.transaction() as connection:
            for lease in leases:
                due = now + lease_s + subscription.backoff_s(lease.attempt)
                connection.execute(
                    f"UPDATE deliveries SET available_at = ? WHERE {LEASED}",  # noqa: S608 - constant text
                    (due, subscription.name, lease.message_id, lease.copy, lease.attempt),
                )
        self._wakeups.notify([subscription.name])

    def release(self, subscription: Subscription, leases: Iterable[Lease]) -> None:
        """Ends leases without success: due again after the backoff, or dead-lettered after the last attempt."""
        now = self._clock()
        woken = {subscription.name}
        with self._database.transaction() as connection:
            for lease in leases:
                woken |= self._release(connection, subscription, lease, now)
        self._wakeups.notify(woken)

    def next_due(self, subscription: str) -> float:
        """Returns seconds until the next message becomes due; infinite when none waits."""
        with self._database.reading() as connection:
            query = "SELECT MIN(available_at) AS due FROM deliveries WHERE subscription = ?"
            due = connection.execute(query, (subscription,)).fetchone()["due"]
        return math.inf if due is None else due - self._clock()

    def held(self, subscription: str, holder: str) -> int:
        """Counts the live leases of `holder`."""
        with self._database.reading() as connection:
            query = "SELECT COUNT(*) FROM deliveries WHERE subscription = ? AND available_at > ? AND holder = ?"
            count: int = connection.execute(query, (subscription, self._clock(), holder)).fetchone()[0]
        return count

    def _release_push_leases(self) -> None:
        """A push request died with the process that made it: its message is due now."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE deliveries SET holder = NULL, available_at = ? WHERE holder = ?", (self._clock(), PUSH_HOLDER)
            )

    def _insert(self, connection: sqlite3.Connection, subscribers: Sequence[str], content: Content) -> int:
        now = self._clock()
        cursor = connection.execute(
            "INSERT INTO messages (data, attributes, ordering_key, publish_time) VALUES (?, ?, ?, ?)",
            (content.data, json.dumps(content.attributes), content.ordering_key, now),
        )
        message_id = cursor.lastrowid or 0
        faults = self._faults.faults
        for name in subscribers:
            for copy in range(faults.copies(self._chance)):
                connection.execute(
                    "INSERT INTO deliveries (subscription, message_id, copy, available_at) VALUES (?, ?, ?, ?)",
                    (name, message_id, copy, now + faults.hold_s(self._chance)),
                )
        if not subscribers:
            connection.execute("DELETE FROM messages WHERE id = ?", (message_id,))
        return message_id

    def _acknowledge(self, connection: sqlite3.Connection, subscription: str, lease: Lease) -> int:
        if _held_row(connection, subscription, lease) is None:
            return 0
        _remove(connection, subscription, lease.message_id, lease.copy)
        return 1

    def _release(
        self, connection: sqlite3.Connection, subscription: Subscription, lease: Lease, now: float
    ) -> set[str]:
        row = _held_row(connection, subscription.name, lease)
        if row is None:
            return set()
        if subscription.exhausted(row["attempts"]) and _can_dead_letter(connection, subscription):
            return self._dead_letter(connection, subscription, row)
        connection.execute(
            "UPDATE deliveries SET holder = NULL, available_at = ? "
            "WHERE subscription = ? AND message_id = ? AND copy = ?",
            (now + subscription.backoff_s(lease.attempt), subscription.name, lease.message_id, lease.copy),
        )
        return set()

    def _dead_letter(self, connection: sqlite3.Connection, subscription: Subscription, row: sqlite3.Row) -> set[str]:
        """Moves one message to the dead-letter topic, in the transaction that removes it here."""
        policy = subscription.dead_letter
        if policy is None:
            return set()
        content = _content(row)
        attributes = dead_letter_attributes(subscription.name, row["attempts"], row["publish_time"])
        subscribers = _subscribers(connection, policy.topic)
        dead = Content(content.data, {**content.attributes, **attributes}, content.ordering_key)
        self._insert(connection, subscribers, dead)
        connection.execute("UPDATE topics SET published = published + 1 WHERE name = ?", (policy.topic,))
        _remove(connection, subscription.name, row["message_id"], row["copy"])
        _count(connection, subscription.name, "dead_lettered", 1)
        logger.warning(
            "Message dead-lettered",
            extra={"subscription": subscription.name, "message_id": row["message_id"], "topic": policy.topic},
        )
        return set(subscribers)


def _can_dead_letter(connection: sqlite3.Connection, subscription: Subscription) -> bool:
    """False once someone has deleted the dead-letter topic: then the message is delivered further."""
    policy = subscription.dead_letter
    if policy is None:
        return False
    if connection.execute("SELECT 1 FROM topics WHERE name = ?", (policy.topic,)).fetchone():
        return True
    logger.warning(
        "The dead-letter topic is gone, the message is delivered further; create the topic again",
        extra={"subscription": subscription.name, "topic": policy.topic},
    )
    return False


def _subscribers(connection: sqlite3.Connection, topic: str) -> list[str]:
    rows = connection.execute("SELECT name FROM subscriptions WHERE topic = ?", (topic,))
    return [row["name"] for row in rows]


def _due(connection: sqlite3.Connection, subscription: str, now: float, limit: int) -> list[sqlite3.Row]:
    query = (
        "SELECT d.message_id, d.copy, d.attempts, m.data, m.attributes, m.ordering_key, m.publish_time "
        "FROM deliveries d JOIN messages m ON m.id = d.message_id "
        "WHERE d.subscription = ? AND d.available_at <= ? ORDER BY d.available_at, d.message_id LIMIT ?"
    )
    rows: list[sqlite3.Row] = []
    size = 0
    for row in connection.execute(query, (subscription, now, limit)):
        size += len(row["data"])
        if rows and size > BATCH_BYTES:
            break
        rows.append(row)
    return rows


def _lease(
    connection: sqlite3.Connection, subscription: Subscription, row: sqlite3.Row, holder: str, until: float
) -> Delivery:
    lease = Lease(row["message_id"], row["copy"], row["attempts"] + 1)
    connection.execute(
        "UPDATE deliveries SET holder = ?, attempts = ?, available_at = ? "
        "WHERE subscription = ? AND message_id = ? AND copy = ?",
        (
            holder,
            lease.attempt,
            until + subscription.backoff_s(lease.attempt),
            subscription.name,
            lease.message_id,
            lease.copy,
        ),
    )
    return Delivery(lease, _content(row), row["publish_time"])


def _held_row(connection: sqlite3.Connection, subscription: str, lease: Lease) -> sqlite3.Row | None:
    query = (
        "SELECT d.message_id, d.copy, d.attempts, m.data, m.attributes, m.ordering_key, m.publish_time "  # noqa: S608
        f"FROM deliveries d JOIN messages m ON m.id = d.message_id WHERE {LEASED}"
    )
    found = connection.execute(query, (subscription, lease.message_id, lease.copy, lease.attempt))
    row: sqlite3.Row | None = found.fetchone()
    return row


def _remove(connection: sqlite3.Connection, subscription: str, message_id: int, copy: int) -> None:
    connection.execute(
        "DELETE FROM deliveries WHERE subscription = ? AND message_id = ? AND copy = ?",
        (subscription, message_id, copy),
    )
    connection.execute(
        "DELETE FROM messages WHERE id = ? AND NOT EXISTS (SELECT 1 FROM deliveries WHERE message_id = ?)",
        (message_id, message_id),
    )


def _count(connection: sqlite3.Connection, subscription: str, counter: str, number: int) -> None:
    if number:
        connection.execute(
            f"UPDATE subscriptions SET {counter} = {counter} + ? WHERE name = ?",  # noqa: S608 - constant names
            (number, subscription),
        )


def _content(row: sqlite3.Row) -> Content:
    return Content(bytes(row["data"]), json.loads(row["attributes"]), row["ordering_key"])
