"""What the emulator holds: subscriptions with their policies, messages, and deliveries under way."""

from dataclasses import dataclass, field

PUSH_HOLDER = "push"
"""Holder of a lease whose message is inside a push request of this process."""


@dataclass(frozen=True)
class OidcToken:
    """Who a push claims to come from, and whom it is meant for."""

    email: str
    audience: str


@dataclass(frozen=True)
class PushTarget:
    """Where messages are pushed."""

    endpoint: str
    oidc: OidcToken | None = None


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff between two attempts at one message, in seconds."""

    minimum_s: float = 10.0
    maximum_s: float = 600.0

    def backoff_s(self, attempt: int) -> float:
        """Returns the wait after the failed `attempt` (1 is the first)."""
        doublings = min(attempt - 1, 32)
        return min(self.minimum_s * 2.0**doublings, self.maximum_s)


@dataclass(frozen=True)
class DeadLetterPolicy:
    """Where a message goes after `max_attempts` failed deliveries."""

    topic: str
    max_attempts: int


@dataclass(frozen=True)
class Subscription:
    """A subscription, with its serialised `google.pubsub.v1.Subscription` as it was accepted."""

    name: str
    topic: str
    definition: bytes
    ack_deadline_s: int = 10
    retention_s: float = 7 * 86_400.0
    push: PushTarget | None = None
    retry: RetryPolicy | None = None
    dead_letter: DeadLetterPolicy | None = None

    def backoff_s(self, attempt: int) -> float:
        """Returns the wait after the failed `attempt`; none without a retry policy."""
        return self.retry.backoff_s(attempt) if self.retry else 0.0

    def exhausted(self, attempts: int) -> bool:
        """Tells whether `attempts` deliveries are all that the dead-letter policy allows."""
        return self.dead_letter is not None and attempts >= self.dead_letter.max_attempts


@dataclass(frozen=True)
class Content:
    """A message as its publisher gave it."""

    data: bytes = b""
    attributes: dict[str, str] = field(default_factory=dict)
    ordering_key: str = ""


@dataclass(frozen=True)
class Lease:
    """Names one delivery attempt of one copy of a message; its text form is the `ack_id`."""

    message_id: int
    copy: int
    attempt: int

    def ack_id(self) -> str:
        """Returns the opaque text that clients acknowledge with."""
        return f"{self.message_id}.{self.copy}.{self.attempt}"

    @classmethod
    def parse(cls, ack_id: str) -> "Lease | None":
        """Reads an `ack_id`; None where the text is not one of ours."""
        parts = ack_id.split(".")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
            return None
        return cls(*map(int, parts))


@dataclass(frozen=True)
class Delivery:
    """One delivery attempt: a message leased to one receiver. `publish_time` is in seconds since the epoch."""

    lease: Lease
    content: Content
    publish_time: float
