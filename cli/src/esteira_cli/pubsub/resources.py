"""Topics and subscriptions, kept in the database and mirrored in memory."""

import sqlite3
import threading
from collections.abc import Callable, Iterable

from esteira_cli.pubsub.database import Database
from esteira_cli.pubsub.exceptions import AlreadyExists, NotFound
from esteira_cli.pubsub.records import Subscription

DELETED_TOPIC = "_deleted-topic_"


class Resources:
    """Names and definitions of what exists. Reads come from memory, writes are committed first."""

    def __init__(self, database: Database, parse: Callable[[bytes], Subscription]) -> None:
        self._database = database
        self._lock = threading.RLock()
        with database.reading() as connection:
            self._topics: dict[str, bytes] = {
                row["name"]: row["definition"] for row in connection.execute("SELECT name, definition FROM topics")
            }
            rows = connection.execute("SELECT definition FROM subscriptions").fetchall()
        parsed = [parse(row["definition"]) for row in rows]
        self._subscriptions = {subscription.name: subscription for subscription in parsed}

    def create_topic(self, name: str, definition: bytes) -> None:
        """Adds a topic.

        Raises:
            AlreadyExists: that name is taken.
        """
        with self._lock, self._database.transaction() as connection:
            if name in self._topics:
                raise AlreadyExists(f"Topic already exists: {name}")
            connection.execute("INSERT INTO topics (name, definition) VALUES (?, ?)", (name, definition))
            self._topics[name] = definition

    def topic(self, name: str) -> bytes:
        """Returns the definition of a topic.

        Raises:
            NotFound: no such topic.
        """
        with self._lock:
            if name not in self._topics:
                raise NotFound(f"Topic not found: {name}; create it first")
            return self._topics[name]

    def has_topic(self, name: str) -> bool:
        """Tells whether the topic exists."""
        with self._lock:
            return name in self._topics

    def topics(self, project: str) -> list[tuple[str, bytes]]:
        """Returns name and definition of the topics of `projects/…`, by name."""
        with self._lock:
            return sorted(item for item in self._topics.items() if item[0].startswith(f"{project}/topics/"))

    def delete_topic(self, name: str, orphaned: Iterable[Subscription]) -> None:
        """Removes a topic; `orphaned` are its subscriptions as they are afterwards.

        Raises:
            NotFound: no such topic.
        """
        with self._lock:
            self.topic(name)
            with self._database.transaction() as connection:
                connection.execute("DELETE FROM topics WHERE name = ?", (name,))
                for subscription in orphaned:
                    _write_subscription(connection, subscription)
                    self._subscriptions[subscription.name] = subscription
                del self._topics[name]

    def create_subscription(self, subscription: Subscription) -> None:
        """Adds a subscription; it receives what is published from now on.

        Raises:
            AlreadyExists: that name is taken.
            NotFound: its topic or its dead-letter topic does not exist.
        """
        with self._lock:
            self.topic(subscription.topic)
            self._check_dead_letter_topic(subscription)
            if subscription.name in self._subscriptions:
                raise AlreadyExists(f"Subscription already exists: {subscription.name}")
            with self._database.transaction() as connection:
                connection.execute(
                    "INSERT INTO subscriptions (name, topic, definition) VALUES (?, ?, ?)",
                    (subscription.name, subscription.topic, subscription.definition),
                )
                self._subscriptions[subscription.name] = subscription

    def replace_subscription(self, subscription: Subscription) -> None:
        """Stores a changed subscription.

        Raises:
            NotFound: it, or its dead-letter topic, does not exist.
        """
        with self._lock:
            self.subscription(subscription.name)
            self._check_dead_letter_topic(subscription)
            with self._database.transaction() as connection:
                _write_subscription(connection, subscription)
                self._subscriptions[subscription.name] = subscription

    def subscription(self, name: str) -> Subscription:
        """Returns a subscription.

        Raises:
            NotFound: no such subscription.
        """
        found = self.find_subscription(name)
        if found is None:
            raise NotFound(f"Subscription does not exist: {name}; create it first")
        return found

    def find_subscription(self, name: str) -> Subscription | None:
        """Returns a subscription, or None."""
        with self._lock:
            return self._subscriptions.get(name)

    def subscriptions(self, project: str = "") -> list[Subscription]:
        """Returns the subscriptions of `projects/…` (all by default), by name."""
        prefix = f"{project}/subscriptions/" if project else ""
        with self._lock:
            return [held for name, held in sorted(self._subscriptions.items()) if name.startswith(prefix)]

    def subscribers(self, topic: str) -> list[Subscription]:
        """Returns the subscriptions of a topic, by name."""
        return [held for held in self.subscriptions() if held.topic == topic]

    def delete_subscription(self, name: str) -> None:
        """Removes a subscription with its backlog.

        Raises:
            NotFound: no such subscription.
        """
        with self._lock:
            self.subscription(name)
            with self._database.transaction() as connection:
                connection.execute("DELETE FROM deliveries WHERE subscription = ?", (name,))
                connection.execute("DELETE FROM subscriptions WHERE name = ?", (name,))
                connection.execute("DELETE FROM messages WHERE id NOT IN (SELECT message_id FROM deliveries)")
                del self._subscriptions[name]

    def _check_dead_letter_topic(self, subscription: Subscription) -> None:
        if subscription.dead_letter is not None:
            self.topic(subscription.dead_letter.topic)


def _write_subscription(connection: sqlite3.Connection, subscription: Subscription) -> None:
    connection.execute(
        "UPDATE subscriptions SET topic = ?, definition = ? WHERE name = ?",
        (subscription.topic, subscription.definition, subscription.name),
    )
