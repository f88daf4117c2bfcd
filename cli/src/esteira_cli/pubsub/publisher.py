"""`google.pubsub.v1.Publisher`."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1 import types

from esteira_cli.pubsub.definitions import (
    SubscriptionPb,
    check_name,
    check_project,
    check_topic,
    read_contents,
    read_subscription,
)
from esteira_cli.pubsub.exceptions import InvalidArgument
from esteira_cli.pubsub.records import Subscription
from esteira_cli.pubsub.resources import DELETED_TOPIC, Resources
from esteira_cli.pubsub.rpc import Method, service_handler
from esteira_cli.pubsub.store import Store

REFUSED = ("UpdateTopic", "ListTopicSnapshots", "DetachSubscription")
MAX_PAGE = 1000


class Publisher:
    """Topics, and publishing to them."""

    def __init__(self, store: Store, resources: Resources) -> None:
        self._store = store
        self._resources = resources

    def handler(self) -> Any:
        """Returns the gRPC handler."""
        methods = {
            "CreateTopic": Method(types.Topic.pb(), self.create_topic),
            "GetTopic": Method(types.GetTopicRequest.pb(), self.get_topic),
            "ListTopics": Method(types.ListTopicsRequest.pb(), self.list_topics),
            "DeleteTopic": Method(types.DeleteTopicRequest.pb(), self.delete_topic),
            "Publish": Method(types.PublishRequest.pb(), self.publish),
            "ListTopicSubscriptions": Method(types.ListTopicSubscriptionsRequest.pb(), self.list_topic_subscriptions),
        }
        return service_handler("Publisher", methods, REFUSED)

    def create_topic(self, request: Any, _context: Any) -> Any:
        """Adds a topic."""
        check_topic(request)
        request.state = types.Topic.State.ACTIVE
        self._resources.create_topic(request.name, request.SerializeToString())
        return request

    def get_topic(self, request: Any, _context: Any) -> Any:
        """Returns a topic."""
        return types.Topic.pb().FromString(self._resources.topic(check_name(request.topic, "topics")))

    def list_topics(self, request: Any, _context: Any) -> Any:
        """Returns the topics of a project, by name."""
        named = dict(self._resources.topics(check_project(request.project)))
        names, token = page(list(named), request)
        topics = [types.Topic.pb().FromString(named[name]) for name in names]
        return types.ListTopicsResponse.pb()(topics=topics, next_page_token=token)

    def delete_topic(self, request: Any, _context: Any) -> Empty:
        """Removes a topic; its subscriptions stay and deliver what they hold."""
        name = check_name(request.topic, "topics")
        self._resources.topic(name)
        orphaned = [_without_topic(subscription) for subscription in self._resources.subscribers(name)]
        self._resources.delete_topic(name, orphaned)
        return Empty()

    def publish(self, request: Any, _context: Any) -> Any:
        """Stores messages; answers after the commit."""
        topic = check_name(request.topic, "topics")
        self._resources.topic(topic)
        ids = self._store.publish(topic, read_contents(request))
        return types.PublishResponse.pb()(message_ids=ids)

    def list_topic_subscriptions(self, request: Any, _context: Any) -> Any:
        """Returns the names of the subscriptions of a topic."""
        topic = check_name(request.topic, "topics")
        self._resources.topic(topic)
        names, token = page([subscription.name for subscription in self._resources.subscribers(topic)], request)
        return types.ListTopicSubscriptionsResponse.pb()(subscriptions=names, next_page_token=token)


def page(names: Sequence[str], request: Any) -> tuple[list[str], str]:
    """Returns the page of sorted `names` that a List request asks for, and the token of the next one.

    Raises:
        InvalidArgument: a negative page size.
    """
    if request.page_size < 0:
        raise InvalidArgument(f"page_size: expected 0 or more, got {request.page_size}")
    size = min(request.page_size or MAX_PAGE, MAX_PAGE)
    following = [name for name in names if name > request.page_token]
    return following[:size], following[size - 1] if len(following) > size else ""


def _without_topic(subscription: Subscription) -> Subscription:
    message = SubscriptionPb.FromString(subscription.definition)
    message.topic = DELETED_TOPIC
    return read_subscription(message)
