"""`google.pubsub.v1.Subscriber`."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1 import types

from esteira_cli.pubsub.definitions import (
    SubscriptionPb,
    check_lease,
    check_name,
    check_project,
    read_subscription,
)
from esteira_cli.pubsub.exceptions import FailedPrecondition, InvalidArgument
from esteira_cli.pubsub.leases import modify_leases, parse_leases, received
from esteira_cli.pubsub.publisher import page
from esteira_cli.pubsub.records import Delivery, Subscription
from esteira_cli.pubsub.resources import Resources
from esteira_cli.pubsub.rpc import Method, service_handler
from esteira_cli.pubsub.store import Store
from esteira_cli.pubsub.streaming import StreamingPull
from esteira_cli.pubsub.wakeups import Wakeups

REFUSED = ("Seek", "CreateSnapshot", "GetSnapshot", "ListSnapshots", "UpdateSnapshot", "DeleteSnapshot")
CHANGEABLE = frozenset(
    {
        "ack_deadline_seconds",
        "dead_letter_policy",
        "expiration_policy",
        "labels",
        "message_retention_duration",
        "push_config",
        "retry_policy",
    }
)
PULL_WAIT_S = 10.0
LOOK_S = 0.5


class Subscriber:
    """Subscriptions, and pulling from them. `changed` is called with the name of each subscription that changed."""

    def __init__(self, store: Store, resources: Resources, wakeups: Wakeups, changed: Callable[[str], None]) -> None:
        self._store = store
        self._resources = resources
        self._wakeups = wakeups
        self._changed = changed
        self._stopping = threading.Event()
        self._streaming = StreamingPull(store, resources, wakeups, self._stopping)

    def handler(self) -> Any:
        """Returns the gRPC handler."""
        methods = {
            "CreateSubscription": Method(SubscriptionPb, self.create),
            "GetSubscription": Method(types.GetSubscriptionRequest.pb(), self.get),
            "ListSubscriptions": Method(types.ListSubscriptionsRequest.pb(), self.list),
            "UpdateSubscription": Method(types.UpdateSubscriptionRequest.pb(), self.update),
            "ModifyPushConfig": Method(types.ModifyPushConfigRequest.pb(), self.modify_push_config),
            "DeleteSubscription": Method(types.DeleteSubscriptionRequest.pb(), self.delete),
            "Pull": Method(types.PullRequest.pb(), self.pull),
            "StreamingPull": Method(types.StreamingPullRequest.pb(), self._streaming.pull, streaming=True),
            "Acknowledge": Method(types.AcknowledgeRequest.pb(), self.acknowledge),
            "ModifyAckDeadline": Method(types.ModifyAckDeadlineRequest.pb(), self.modify_ack_deadline),
        }
        return service_handler("Subscriber", methods, REFUSED)

    def stop(self) -> None:
        """Ends waiting pulls and streams."""
        self._stopping.set()
        self._wakeups.notify([subscription.name for subscription in self._resources.subscriptions()])

    def create(self, request: Any, _context: Any) -> Any:
        """Adds a subscription."""
        subscription = read_subscription(request)
        self._resources.create_subscription(subscription)
        self._changed(subscription.name)
        return SubscriptionPb.FromString(subscription.definition)

    def get(self, request: Any, _context: Any) -> Any:
        """Returns a subscription."""
        return SubscriptionPb.FromString(self._subscription(request).definition)

    def list(self, request: Any, _context: Any) -> Any:
        """Returns the subscriptions of a project, by name."""
        found = self._resources.subscriptions(check_project(request.project))
        named = {subscription.name: subscription for subscription in found}
        names, token = page(list(named), request)
        messages = [SubscriptionPb.FromString(named[name].definition) for name in names]
        return types.ListSubscriptionsResponse.pb()(subscriptions=messages, next_page_token=token)

    def update(self, request: Any, _context: Any) -> Any:
        """Changes the fields of the mask."""
        name = check_name(request.subscription.name, "subscriptions")
        fields = {path.split(".")[0] for path in request.update_mask.paths}
        if not fields or not fields <= CHANGEABLE:
            wrong = ", ".join(sorted(fields - CHANGEABLE)) or "nothing"
            raise InvalidArgument(f"update_mask names {wrong}; one can change {', '.join(sorted(CHANGEABLE))}")
        message = SubscriptionPb.FromString(self._resources.subscription(name).definition)
        for field in fields:
            _copy_field(request.subscription, message, field)
        return self._replace(message)

    def modify_push_config(self, request: Any, _context: Any) -> Empty:
        """Changes where messages are pushed; an empty config makes it a pull subscription."""
        message = SubscriptionPb.FromString(self._subscription(request).definition)
        message.push_config.CopyFrom(request.push_config)
        self._replace(message)
        return Empty()

    def delete(self, request: Any, _context: Any) -> Empty:
        """Removes a subscription with its backlog."""
        name = check_name(request.subscription, "subscriptions")
        self._resources.delete_subscription(name)
        self._changed(name)
        return Empty()

    def pull(self, request: Any, context: Any) -> Any:
        """Leases messages to the caller; waits a while for the first."""
        if request.max_messages < 1:
            raise InvalidArgument(f"max_messages: expected 1 or more, got {request.max_messages}")
        subscription = self._subscription(request)
        if subscription.push is not None:
            raise FailedPrecondition(f"{subscription.name} is a push subscription: one cannot pull from it")
        wait_s = 0.0 if request.return_immediately else PULL_WAIT_S
        deliveries = self._claim(subscription, min(request.max_messages, 1000), wait_s, context)
        return types.PullResponse.pb()(received_messages=[received(delivery, subscription) for delivery in deliveries])

    def acknowledge(self, request: Any, _context: Any) -> Empty:
        """Ends leases with success."""
        self._store.acknowledge(self._subscription(request).name, parse_leases(request.ack_ids))
        return Empty()

    def modify_ack_deadline(self, request: Any, _context: Any) -> Empty:
        """Extends leases, or gives them back with 0."""
        seconds = check_lease(request.ack_deadline_seconds)
        modify_leases(self._store, self._subscription(request), parse_leases(request.ack_ids), seconds)
        return Empty()

    def _subscription(self, request: Any) -> Subscription:
        return self._resources.subscription(check_name(request.subscription, "subscriptions"))

    def _replace(self, message: Any) -> Any:
        subscription = read_subscription(message)
        self._resources.replace_subscription(subscription)
        self._changed(subscription.name)
        return SubscriptionPb.FromString(subscription.definition)

    def _claim(self, subscription: Subscription, limit: int, wait_s: float, context: Any) -> Sequence[Delivery]:
        end = time.monotonic() + wait_s
        while context.is_active() and not self._stopping.is_set():
            seen = self._wakeups.count(subscription.name)
            deliveries = self._store.claim(subscription, limit, "pull", subscription.ack_deadline_s)
            left_s = end - time.monotonic()
            if deliveries or left_s <= 0:
                return deliveries
            self._wakeups.wait(subscription.name, seen, min(left_s, LOOK_S, self._store.next_due(subscription.name)))
        return []


def _copy_field(source: Any, target: Any, field: str) -> None:
    target.ClearField(field)
    if field in {descriptor.name for descriptor, _ in source.ListFields()}:
        partial = SubscriptionPb()
        partial.CopyFrom(source)
        for descriptor, _ in source.ListFields():
            if descriptor.name != field:
                partial.ClearField(descriptor.name)
        target.MergeFrom(partial)
