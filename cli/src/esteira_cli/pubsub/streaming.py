"""StreamingPull: messages flow as long as the receiver keeps up."""

import itertools
import threading
from collections.abc import Iterator
from typing import Any

from google.pubsub_v1 import types

from esteira_cli.pubsub.definitions import check_lease, check_name
from esteira_cli.pubsub.exceptions import FailedPrecondition, InvalidArgument, PubSubError
from esteira_cli.pubsub.leases import modify_leases, parse_leases, received
from esteira_cli.pubsub.records import Subscription
from esteira_cli.pubsub.resources import Resources
from esteira_cli.pubsub.store import Store
from esteira_cli.pubsub.wakeups import Wakeups

MAX_STREAMS = 48
"""Each stream keeps a thread; the rest is for other calls."""
DEFAULT_OUTSTANDING = 1000
BATCH = 100
LOOK_S = 0.5


class StreamingPull:
    """Answers all StreamingPull calls until `stopping` is set."""

    def __init__(self, store: Store, resources: Resources, wakeups: Wakeups, stopping: threading.Event) -> None:
        self._store = store
        self._resources = resources
        self._wakeups = wakeups
        self._stopping = stopping
        self._ids = itertools.count(1)
        self._slots = threading.BoundedSemaphore(MAX_STREAMS)

    def pull(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        """Yields responses until the caller hangs up or its subscription is deleted.

        Raises:
            InvalidArgument: the first request names no subscription, or a wrong deadline.
            FailedPrecondition: a push subscription, or too many streams at once.
        """
        if not self._slots.acquire(blocking=False):
            raise FailedPrecondition(f"More than {MAX_STREAMS} streams at once; close some")
        try:
            first = next(requests, None)
            if first is None:
                return
            subscription = self._subscription(first)
            threading.Thread(target=self._listen, args=(requests, subscription, context), daemon=True).start()
            yield from self._messages(first, subscription, context)
        finally:
            self._slots.release()

    def _subscription(self, first: Any) -> Subscription:
        subscription = self._resources.subscription(check_name(first.subscription, "subscriptions"))
        if not 10 <= first.stream_ack_deadline_seconds <= 600:
            raise InvalidArgument(
                f"stream_ack_deadline_seconds: expected 10 to 600, got {first.stream_ack_deadline_seconds}"
            )
        if subscription.push is not None:
            raise FailedPrecondition(f"{subscription.name} is a push subscription: one cannot pull from it")
        return subscription

    def _messages(self, first: Any, subscription: Subscription, context: Any) -> Iterator[Any]:
        holder = f"stream-{next(self._ids)}"
        limit = first.max_outstanding_messages if first.max_outstanding_messages > 0 else DEFAULT_OUTSTANDING
        name = subscription.name
        while context.is_active() and not self._stopping.is_set():
            seen = self._wakeups.count(name)
            current = self._resources.subscription(name)
            room = min(limit - self._store.held(name, holder), BATCH)
            lease_s = first.stream_ack_deadline_seconds
            deliveries = self._store.claim(current, room, holder, lease_s) if room > 0 else []
            if deliveries:
                yield _response([received(delivery, current) for delivery in deliveries])
            else:
                self._wakeups.wait(name, seen, LOOK_S if room <= 0 else min(LOOK_S, self._store.next_due(name)))

    def _listen(self, requests: Iterator[Any], subscription: Subscription, context: Any) -> None:
        """Applies the acknowledgements and deadlines that come in on the stream."""
        try:
            for request in requests:
                self._apply(request, subscription)
        except PubSubError:
            context.cancel()
        except Exception:
            if context.is_active():
                raise

    def _apply(self, request: Any, subscription: Subscription) -> None:
        if request.ack_ids:
            self._store.acknowledge(subscription.name, parse_leases(request.ack_ids))
        pairs = zip(request.modify_deadline_ack_ids, request.modify_deadline_seconds, strict=False)
        for ack_id, seconds in pairs:
            modify_leases(self._store, subscription, parse_leases([ack_id]), check_lease(seconds))


def _response(messages: list[Any]) -> Any:
    properties = types.StreamingPullResponse.SubscriptionProperties.pb()(
        exactly_once_delivery_enabled=False, message_ordering_enabled=False
    )
    return types.StreamingPullResponse.pb()(received_messages=messages, subscription_properties=properties)
