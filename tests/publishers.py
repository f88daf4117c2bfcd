"""Stand where the predictor publishes, without Pub/Sub."""

from pathlib import Path
from typing import Any

from esteira.events import Message
from predictor.publishing import SpoolPublisher


class Mailbox:
    """Keeps what is published; raises `error` while one is set."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.error: Exception | None = None

    def publish(self, message: Message) -> None:
        """Takes a message, as Pub/Sub does."""
        if self.error:
            raise self.error
        self.messages.append(message)


def publish_spools(publisher: Any, root: Path) -> None:
    """Publishes what the predictor's workers spooled below `root`, as its keeper does."""
    spools = SpoolPublisher(publisher, root)
    try:
        spools.publish()
    finally:
        spools.close()


class Nowhere:
    """Takes messages and forgets them."""

    def publish(self, _: Message) -> None:
        """Forgets it."""
