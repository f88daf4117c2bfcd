"""Publishing to Pub/Sub, done when the server says so."""

import logging
import os
import threading
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any

from esteira.events import Message
from esteira.exceptions import BadInput, EsteiraError, Problem, Unavailable

if TYPE_CHECKING:
    from google.cloud.pubsub_v1 import PublisherClient

logger = logging.getLogger(__name__)

MAX_BYTES = 10_000_000


class Publisher:
    """Publishes messages to the topics of a project.

    The client is made at first use in each process, for gRPC does not survive a fork, and only then is its
    library imported. Threads may share a publisher.
    """

    def __init__(self, project: str, timeout: float = 15.0) -> None:
        self._project = project
        self._timeout = timeout
        self._lock = threading.Lock()
        self._made: tuple[int, PublisherClient] | None = None

    def publish(self, message: Message) -> None:
        """Sends one message and waits until the server has it.

        Raises:
            BadInput: Pub/Sub takes no message of that size.
            Unavailable: no confirmation within the timeout; the message may arrive all the same.
        """
        _require_size(message)
        sent = [{"data": message.data, "attributes": message.attributes}]
        try:  # one request at once: the client's own batching costs a message ten milliseconds, and five times the work
            self._client().api.publish(
                topic=self._topic(message), messages=sent, retry=_retry(self._timeout), timeout=self._timeout
            )
        except Exception as error:
            raise _translated(message, error) from error

    def publish_many(self, messages: list[Message]) -> list[Exception | None]:
        """Sends all and waits for all; for each message, in order, None or the reason why it may not have arrived."""
        started = [self._start(message) for message in messages]
        return [_outcome(message, future, self._timeout) for message, future in zip(messages, started, strict=True)]

    def close(self) -> None:
        """Ends the client's threads."""
        with self._lock:
            if self._made is not None and self._made[0] == os.getpid():
                self._made[1].stop()
            self._made = None

    def _start(self, message: Message) -> Any:
        """A future of the server's answer, or the error that kept it from being asked."""
        try:
            _require_size(message)
            topic = self._topic(message)
            return self._client().publish(topic, message.data, timeout=self._timeout, **message.attributes)
        except BadInput as error:
            return error
        except Exception as error:
            return _translated(message, error)

    def _topic(self, message: Message) -> str:
        return f"projects/{self._project}/topics/{message.topic}"

    def _client(self) -> "PublisherClient":
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = os.getpid(), _make_client(self._timeout)
            return self._made[1]


def _make_client(timeout: float) -> "PublisherClient":
    from google.cloud.pubsub_v1 import PublisherClient
    from google.cloud.pubsub_v1.types import PublisherOptions

    return PublisherClient(publisher_options=PublisherOptions(retry=_retry(timeout), timeout=timeout))


def _retry(timeout: float) -> Any:
    from google.api_core.retry import Retry

    return Retry(initial=0.1, maximum=2.0, timeout=timeout)


def _require_size(message: Message) -> None:
    if len(message.data) > MAX_BYTES:
        raise BadInput([Problem("data", f"has {len(message.data)} bytes, Pub/Sub takes {MAX_BYTES}")])


def _outcome(message: Message, future: Any, timeout: float) -> Exception | None:
    if isinstance(future, EsteiraError):
        return future
    try:
        future.result(timeout=timeout)
    except Exception as error:
        return _translated(message, error)
    return None


def _translated(message: Message, error: Exception) -> Unavailable:
    what = "no answer in time" if isinstance(error, FutureTimeout) else f"{type(error).__name__}: {error}"
    unavailable = Unavailable(f"Pub/Sub did not confirm a message to {message.topic}: {what}")
    unavailable.__cause__ = error
    return unavailable
