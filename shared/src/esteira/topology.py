"""The one declaration of topics and subscriptions, and its application to a Pub/Sub.

Each hearer of a topic has a push subscription to `POST /events/<topic>`; what it fails on moves to the topic's
dead-letter topic, which has a pull subscription of its own so that nothing is dropped. No filters: Google's emulator
ignores them.
"""

from collections.abc import Mapping
from typing import Any

import msgspec


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A push subscription of one service to one topic."""

    topic: str
    hearer: str
    ack_deadline_s: int = 60
    """Also the HTTP timeout of a push: at most 600."""
    min_backoff_s: int = 1
    max_backoff_s: int = 600
    max_attempts: int = 20
    """Deliveries after which a message is dead-lettered: 5 to 100."""

    @property
    def name(self) -> str:
        """The subscription's id."""
        return f"{self.topic}.{self.hearer}"

    @property
    def path(self) -> str:
        """Where the hearer takes it."""
        return f"/events/{self.topic}"


SUBSCRIPTIONS: tuple[Subscription, ...] = (
    Subscription(topic="raw-data-uploaded", hearer="etl", ack_deadline_s=600),
    Subscription(topic="dataset-prepared", hearer="trainer"),
    Subscription(topic="retrain-requested", hearer="trainer"),
    Subscription(topic="outcomes-observed", hearer="monitor", ack_deadline_s=300),
    Subscription(topic="predictions-served", hearer="monitor"),
    Subscription(topic="model-approved", hearer="monitor"),
    Subscription(topic="model-promoted", hearer="monitor"),
    Subscription(topic="model-promoted", hearer="predictor", ack_deadline_s=30),
)

TOPICS: tuple[str, ...] = tuple(dict.fromkeys(subscription.topic for subscription in SUBSCRIPTIONS))


def dead_letter_topic(topic: str) -> str:
    """Where messages of `topic` go that no delivery could place; its subscription has the same id."""
    return f"{topic}.dead"


def apply(
    publisher: Any,
    subscriber: Any,
    project: str,
    endpoints: Mapping[str, str],
    push_service_account: str | None = None,
    audiences: Mapping[str, str] | None = None,
) -> None:
    """Creates what is missing and brings push endpoints up to date; may be run again at any time.

    Args:
        publisher: a `PublisherClient`.
        subscriber: a `SubscriberClient`.
        endpoints: the base URL of each service that hears.
        push_service_account: whose OIDC token a push carries; None sends none.
        audiences: each service's audience; without one, its base URL.
    """
    for topic in TOPICS:
        _create_topic(publisher, project, topic)
        _create_topic(publisher, project, dead_letter_topic(topic))
        _create_subscription(subscriber, _keeper(project, topic))
    for subscription in SUBSCRIPTIONS:
        base = endpoints[subscription.hearer].rstrip("/")
        push: dict[str, Any] = {"push_endpoint": f"{base}{subscription.path}"}
        if push_service_account:
            audience = (audiences or {}).get(subscription.hearer, base)
            push["oidc_token"] = {"service_account_email": push_service_account, "audience": audience}
        _create_subscription(subscriber, _push(project, subscription, push))


def _create_topic(publisher: Any, project: str, topic: str) -> None:
    from google.api_core.exceptions import AlreadyExists

    try:
        publisher.create_topic(request={"name": f"projects/{project}/topics/{topic}"})
    except AlreadyExists:
        return


def _create_subscription(subscriber: Any, request: dict[str, Any]) -> None:
    from google.api_core.exceptions import AlreadyExists

    try:
        subscriber.create_subscription(request=request)
    except AlreadyExists:
        if "push_config" in request:
            change = {"subscription": request["name"], "push_config": request["push_config"]}
            subscriber.modify_push_config(request=change)


def _keeper(project: str, topic: str) -> dict[str, Any]:
    dead = dead_letter_topic(topic)
    return {
        "name": f"projects/{project}/subscriptions/{dead}",
        "topic": f"projects/{project}/topics/{dead}",
        "message_retention_duration": {"seconds": 7 * 24 * 3600},
        "expiration_policy": {},
    }


def _push(project: str, subscription: Subscription, push_config: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": f"projects/{project}/subscriptions/{subscription.name}",
        "topic": f"projects/{project}/topics/{subscription.topic}",
        "push_config": push_config,
        "ack_deadline_seconds": subscription.ack_deadline_s,
        "retry_policy": {
            "minimum_backoff": {"seconds": subscription.min_backoff_s},
            "maximum_backoff": {"seconds": subscription.max_backoff_s},
        },
        "dead_letter_policy": {
            "dead_letter_topic": f"projects/{project}/topics/{dead_letter_topic(subscription.topic)}",
            "max_delivery_attempts": subscription.max_attempts,
        },
        "expiration_policy": {},
    }
