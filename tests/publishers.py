"""Stand where the predictor publishes, without Pub/Sub."""

from esteira.events import Message


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


class Nowhere:
    """Takes messages and forgets them."""

    def publish(self, _: Message) -> None:
        """Forgets it."""
