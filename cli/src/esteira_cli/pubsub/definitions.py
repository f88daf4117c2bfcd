"""Reads `google.pubsub.v1` messages: what they ask for, and whether Pub/Sub would take it."""

import re
from typing import Any
from urllib.parse import urlsplit

from google.pubsub_v1 import types

from esteira_cli.pubsub.exceptions import InvalidArgument, Unsupported
from esteira_cli.pubsub.records import (
    Content,
    DeadLetterPolicy,
    OidcToken,
    PushTarget,
    RetryPolicy,
    Subscription,
)

SubscriptionPb: Any = types.Subscription.pb()

MAX_REQUEST_BYTES = 10_000_000
MAX_MESSAGES = 1_000
MAX_ATTRIBUTES = 100
MAX_ATTRIBUTE_KEY_BYTES = 256
MAX_ATTRIBUTE_VALUE_BYTES = 1024
DEFAULT_ACK_DEADLINE_S = 10
DEFAULT_DEAD_LETTER_ATTEMPTS = 5
DEFAULT_RETENTION_S = 7 * 86_400

IDENTIFIER = re.compile(r"(?!goog)[A-Za-z][A-Za-z0-9\-_.~+%]{2,254}")
PROJECT = re.compile(r"projects/[a-z0-9][a-z0-9\-.:]*")
UNSUPPORTED_TOPIC = ("kms_key_name", "schema_settings", "ingestion_data_source_settings", "message_transforms")
UNSUPPORTED_SUBSCRIPTION = (
    "filter",
    "enable_message_ordering",
    "enable_exactly_once_delivery",
    "retain_acked_messages",
    "bigquery_config",
    "cloud_storage_config",
    "bigtable_config",
    "message_transforms",
)


def check_name(name: str, collection: str) -> str:
    """Returns `name` if it is `projects/<project>/<collection>/<id>`.

    Raises:
        InvalidArgument: it is not.
    """
    project, _, rest = name.partition(f"/{collection}/")
    if not PROJECT.fullmatch(project) or not IDENTIFIER.fullmatch(rest):
        raise InvalidArgument(
            f"Invalid resource name {name!r}: expected projects/<project>/{collection}/<id>, where the id has 3 to 255 "
            "letters, digits or -_.~+%, starts with a letter and not with 'goog'"
        )
    return name


def check_project(name: str) -> str:
    """Returns `name` if it is `projects/<project>`.

    Raises:
        InvalidArgument: it is not.
    """
    if not PROJECT.fullmatch(name):
        raise InvalidArgument(f"Invalid project name {name!r}: expected projects/<project>")
    return name


def check_topic(topic: Any) -> None:
    """Checks a topic to be created.

    Raises:
        InvalidArgument: its name is invalid.
        Unsupported: it asks for what the emulator lacks.
    """
    check_name(topic.name, "topics")
    _refuse(topic, UNSUPPORTED_TOPIC)


def read_contents(request: Any) -> list[Content]:
    """Reads the messages of a `PublishRequest`.

    Raises:
        InvalidArgument: over a limit of Pub/Sub, or an empty message.
    """
    if not 1 <= len(request.messages) <= MAX_MESSAGES:
        raise InvalidArgument(f"A publish request holds 1 to {MAX_MESSAGES} messages, got {len(request.messages)}")
    size = request.ByteSize()
    if size > MAX_REQUEST_BYTES:
        raise InvalidArgument(f"The publish request has {size} bytes; the limit is {MAX_REQUEST_BYTES}")
    return [_content(message) for message in request.messages]


def read_subscription(message: Any) -> Subscription:
    """Reads a `Subscription` to be created or as changed, with Pub/Sub's defaults filled in.

    Raises:
        InvalidArgument: a name or a value out of range.
        Unsupported: it asks for what the emulator lacks.
    """
    check_name(message.name, "subscriptions")
    if message.topic != "_deleted-topic_":
        check_name(message.topic, "topics")
    _refuse(message, UNSUPPORTED_SUBSCRIPTION)
    filled = _with_defaults(message)
    _within("ack_deadline_seconds", filled.ack_deadline_seconds, 10, 600)
    retention_s = filled.message_retention_duration.ToTimedelta().total_seconds()
    _within("message_retention_duration", retention_s, 600, 31 * 86_400)
    return Subscription(
        name=filled.name,
        topic=filled.topic,
        definition=filled.SerializeToString(),
        ack_deadline_s=filled.ack_deadline_seconds,
        retention_s=retention_s,
        push=_push_target(filled),
        retry=_retry_policy(filled),
        dead_letter=_dead_letter_policy(filled),
    )


def parse_subscription(definition: bytes) -> Subscription:
    """Reads back what `read_subscription` has accepted."""
    return read_subscription(SubscriptionPb.FromString(definition))


def check_lease(seconds: int) -> int:
    """Returns `seconds` if it is a deadline that leases can have.

    Raises:
        InvalidArgument: it is not within 0 to 600.
    """
    _within("ack_deadline_seconds", seconds, 0, 600)
    return seconds


def _with_defaults(message: Any) -> Any:
    filled = SubscriptionPb()
    filled.CopyFrom(message)
    filled.state = types.Subscription.State.ACTIVE
    filled.ack_deadline_seconds = filled.ack_deadline_seconds or DEFAULT_ACK_DEADLINE_S
    if not filled.HasField("message_retention_duration"):
        filled.message_retention_duration.seconds = DEFAULT_RETENTION_S
    if not filled.HasField("expiration_policy"):
        filled.expiration_policy.ttl.seconds = 31 * 86_400
    if filled.HasField("retry_policy"):
        policy = filled.retry_policy
        if not policy.HasField("minimum_backoff"):
            policy.minimum_backoff.seconds = 10
        if not policy.HasField("maximum_backoff"):
            policy.maximum_backoff.seconds = 600
    if filled.HasField("dead_letter_policy") and not filled.dead_letter_policy.max_delivery_attempts:
        filled.dead_letter_policy.max_delivery_attempts = DEFAULT_DEAD_LETTER_ATTEMPTS
    return filled


def _push_target(message: Any) -> PushTarget | None:
    config = message.push_config
    if not config.push_endpoint:
        return None
    parts = urlsplit(config.push_endpoint)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidArgument(f"Invalid push endpoint {config.push_endpoint!r}: expected http(s)://host/path")
    if config.HasField("no_wrapper"):
        raise Unsupported("push_config.no_wrapper: the emulator pushes wrapped messages only")
    token = config.oidc_token
    if not config.HasField("oidc_token"):
        return PushTarget(config.push_endpoint)
    if "@" not in token.service_account_email:
        raise InvalidArgument("push_config.oidc_token.service_account_email: expected an e-mail address")
    return PushTarget(
        config.push_endpoint, OidcToken(token.service_account_email, token.audience or config.push_endpoint)
    )


def _retry_policy(message: Any) -> RetryPolicy | None:
    if not message.HasField("retry_policy"):
        return None
    minimum_s = message.retry_policy.minimum_backoff.ToTimedelta().total_seconds()
    maximum_s = message.retry_policy.maximum_backoff.ToTimedelta().total_seconds()
    _within("retry_policy.minimum_backoff", minimum_s, 0, 600)
    _within("retry_policy.maximum_backoff", maximum_s, 0, 600)
    if minimum_s > maximum_s:
        raise InvalidArgument(f"retry_policy: minimum_backoff {minimum_s} s is above maximum_backoff {maximum_s} s")
    return RetryPolicy(minimum_s, maximum_s)


def _dead_letter_policy(message: Any) -> DeadLetterPolicy | None:
    policy = message.dead_letter_policy
    if not policy.dead_letter_topic:
        return None
    check_name(policy.dead_letter_topic, "topics")
    _within("dead_letter_policy.max_delivery_attempts", policy.max_delivery_attempts, 5, 100)
    return DeadLetterPolicy(policy.dead_letter_topic, policy.max_delivery_attempts)


def _content(message: Any) -> Content:
    attributes = dict(message.attributes)
    if not message.data and not attributes:
        raise InvalidArgument("A message must have data or at least one attribute")
    if len(attributes) > MAX_ATTRIBUTES:
        raise InvalidArgument(f"A message has at most {MAX_ATTRIBUTES} attributes, got {len(attributes)}")
    for key, value in attributes.items():
        _check_attribute(key, value)
    return Content(message.data, attributes, message.ordering_key)


def _check_attribute(key: str, value: str) -> None:
    if not key or len(key.encode()) > MAX_ATTRIBUTE_KEY_BYTES or key.startswith("goog"):
        raise InvalidArgument(
            f"Invalid attribute key {key[:40]!r}: 1 to {MAX_ATTRIBUTE_KEY_BYTES} bytes, not starting with 'goog'"
        )
    if len(value.encode()) > MAX_ATTRIBUTE_VALUE_BYTES:
        raise InvalidArgument(f"The value of attribute {key!r} has more than {MAX_ATTRIBUTE_VALUE_BYTES} bytes")


def _refuse(message: Any, fields: tuple[str, ...]) -> None:
    present = {descriptor.name for descriptor, _ in message.ListFields()}
    for field in fields:
        if field in present:
            raise Unsupported(f"{field}: this emulator does not have it; leave it unset")


def _within(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidArgument(f"{what}: expected {low} to {high}, got {value}")
