"""Leases on the wire: received messages, `ack_ids`, and their deadlines."""

from collections.abc import Iterable
from typing import Any

from google.pubsub_v1 import types

from esteira_cli.pubsub.exceptions import InvalidArgument
from esteira_cli.pubsub.records import Delivery, Lease, Subscription
from esteira_cli.pubsub.store import Store


def received(delivery: Delivery, subscription: Subscription) -> Any:
    """Returns a delivery as `ReceivedMessage`; it counts attempts only with a dead-letter policy."""
    content = delivery.content
    message = types.PubsubMessage.pb()(
        data=content.data,
        attributes=content.attributes,
        message_id=str(delivery.lease.message_id),
        ordering_key=content.ordering_key,
    )
    message.publish_time.FromNanoseconds(int(delivery.publish_time * 1_000) * 1_000_000)
    attempt = delivery.lease.attempt if subscription.dead_letter else 0
    return types.ReceivedMessage.pb()(ack_id=delivery.lease.ack_id(), message=message, delivery_attempt=attempt)


def parse_leases(ack_ids: Iterable[str]) -> list[Lease]:
    """Reads `ack_ids`.

    Raises:
        InvalidArgument: none, or one that this emulator has not given.
    """
    parsed = [Lease.parse(ack_id) for ack_id in ack_ids]
    leases = [lease for lease in parsed if lease is not None]
    if not leases or len(leases) != len(parsed):
        raise InvalidArgument("ack_ids: expected one or more ids as received with messages")
    return leases


def modify_leases(store: Store, subscription: Subscription, leases: Iterable[Lease], seconds: int) -> None:
    """Extends leases to end `seconds` from now, or gives them back with 0."""
    if seconds == 0:
        store.release(subscription, leases)
    else:
        store.extend(subscription, leases, seconds)
