"""The one declaration of topics and subscriptions, and its application to a Pub/Sub.

Each hearer of a topic has a push subscription to `POST /events/<topic>`; what it fails on moves to the topic's
dead-letter topic, which has a pull subscription of its own so that nothing is dropped. No filters: Google's emulator
ignores them.

`python -m esteira.topology` applies it to the emulators of the environment, and makes the bucket; with `--every` it
goes on doing so, for an emulator forgets its topics when it is restarted.
"""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from esteira.exceptions import EsteiraError, SettingsInvalid, Unavailable
from esteira.logs import configure_logging
from esteira.settings import read_settings

logger = logging.getLogger(__name__)

_CALL: dict[str, Any] = {"timeout": 20.0, "retry": None}


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
    listed = publisher.list_topics(request={"project": f"projects/{project}"}, **_CALL)
    topics = {topic.name for topic in listed}
    for topic in (*TOPICS, *map(dead_letter_topic, TOPICS)):
        if (name := f"projects/{project}/topics/{topic}") not in topics:
            _create_topic(publisher, name)
    listed = subscriber.list_subscriptions(request={"project": f"projects/{project}"}, **_CALL)
    known = {subscription.name: subscription for subscription in listed}
    for request in _wanted(project, endpoints, push_service_account, audiences or {}):
        _apply_subscription(subscriber, request, known.get(request["name"]))


def _wanted(
    project: str, endpoints: Mapping[str, str], push_service_account: str | None, audiences: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    for topic in TOPICS:
        yield _keeper(project, topic)
    for subscription in SUBSCRIPTIONS:
        base = endpoints[subscription.hearer].rstrip("/")
        push: dict[str, Any] = {"push_endpoint": f"{base}{subscription.path}"}
        if push_service_account:
            audience = audiences.get(subscription.hearer, base)
            push["oidc_token"] = {"service_account_email": push_service_account, "audience": audience}
        yield _push(project, subscription, push)


def _create_topic(publisher: Any, name: str) -> None:
    from google.api_core.exceptions import AlreadyExists

    try:
        publisher.create_topic(request={"name": name}, **_CALL)
    except AlreadyExists:  # another made it meanwhile
        return
    logger.info("topic created", extra={"topic": name})


def _apply_subscription(subscriber: Any, request: dict[str, Any], known: Any | None) -> None:
    """Changes nothing that is as it should be: pushes under way would begin anew."""
    if known is None:
        _create_subscription(subscriber, request)
    elif "push_config" in request and not _pushes_as(known.push_config, request["push_config"]):
        change = {"subscription": request["name"], "push_config": request["push_config"]}
        subscriber.modify_push_config(request=change, **_CALL)
        logger.info("push changed", extra={"subscription": request["name"]})


def _create_subscription(subscriber: Any, request: dict[str, Any]) -> None:
    from google.api_core.exceptions import AlreadyExists

    try:
        subscriber.create_subscription(request=request, **_CALL)
    except AlreadyExists:  # another made it meanwhile
        return
    logger.info("subscription created", extra={"subscription": request["name"]})


def _pushes_as(found: Any, wanted: Mapping[str, Any]) -> bool:
    token = wanted.get("oidc_token", {"service_account_email": "", "audience": ""})
    return bool(
        found.push_endpoint == wanted["push_endpoint"]
        and found.oidc_token.service_account_email == token["service_account_email"]
        and found.oidc_token.audience == token["audience"]
    )


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


class TopologySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the command is told by its environment."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe kind of log line to write."""
    google_cloud_project: str
    """The Google Cloud project that owns the topics and the bucket."""
    bucket: str
    """The name of the bucket, without gs://."""
    pubsub_emulator_host: str
    """host:port of the Pub/Sub emulator."""
    storage_emulator_host: str
    """Address of the Cloud Storage emulator."""
    endpoints: str
    """The base URL of each service that hears, such as etl=http://etl:8080,trainer=http://trainer:8080."""
    push_service_account: str | None = None
    """The e-mail address of the service account that pushes; without one, pushes carry no token."""


def parse_endpoints(text: str) -> dict[str, str]:
    """Reads `name=URL,name=URL`.

    Raises:
        SettingsInvalid: it has another form, or a hearer has no address.
    """
    pairs = [part.strip().partition("=") for part in text.split(",")]
    found = {name: url for name, _, url in pairs if name and url.startswith(("http://", "https://"))}
    if len(found) < len(pairs):
        raise SettingsInvalid(f"ENDPOINTS is {text!r}, not of the form etl=http://etl:8080,trainer=http://trainer:8080")
    missing = {subscription.hearer for subscription in SUBSCRIPTIONS} - set(found)
    if missing:
        raise SettingsInvalid(f"ENDPOINTS names no address of {', '.join(sorted(missing))}, where messages are pushed")
    return found


@contextmanager
def emulator_clients(host: str) -> Iterator[tuple[Any, Any]]:
    """Opens a `PublisherClient` and a `SubscriberClient` of the emulator at `host`."""
    import grpc
    from google.pubsub_v1.services.publisher import PublisherClient
    from google.pubsub_v1.services.publisher.transports.grpc import PublisherGrpcTransport
    from google.pubsub_v1.services.subscriber import SubscriberClient
    from google.pubsub_v1.services.subscriber.transports.grpc import SubscriberGrpcTransport

    with grpc.insecure_channel(host, options=[("grpc.enable_http_proxy", 0)]) as channel:
        publisher = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
        yield publisher, SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))


def _apply_all(settings: TopologySettings, endpoints: Mapping[str, str]) -> None:
    from google.api_core.exceptions import GoogleAPICallError

    from esteira.bucket import Bucket

    project, host = settings.google_cloud_project, settings.pubsub_emulator_host
    try:
        with emulator_clients(host) as (publisher, subscriber):
            apply(publisher, subscriber, project, endpoints, settings.push_service_account)
    except GoogleAPICallError as error:
        raise Unavailable(f"Pub/Sub at {host}: {type(error).__name__}: {error}") from error
    Bucket(settings.bucket, project, settings.storage_emulator_host, patience=20.0).create()


def _keep(settings: TopologySettings, endpoints: Mapping[str, str], every: float, heartbeat: Path | None) -> None:
    last: str | None = None
    while True:
        try:
            _apply_all(settings, endpoints)
        except EsteiraError as error:
            if str(error) != last:
                logger.warning("topology not applied", extra={"error": str(error)})
            last = str(error)
        else:
            if heartbeat:
                heartbeat.touch()
            last = None
        time.sleep(every)


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Applies the topology, once or until it is told to stop; gives the exit code."""
    options = _parser().parse_args(arguments)
    configure_logging("topology", environ.get("LOG_LEVEL") or "info", environ.get("GOOGLE_CLOUD_PROJECT"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        settings = read_settings(TopologySettings, environ)
        endpoints = parse_endpoints(settings.endpoints)
        if options.every is not None:
            _keep(settings, endpoints, options.every, options.heartbeat)
        _apply_all(settings, endpoints)
    except EsteiraError as error:
        logger.critical("topology not applied", extra={"error": str(error)})
        return 1
    logger.info("topology applied", extra={"topics": len(TOPICS), "subscriptions": len(SUBSCRIPTIONS)})
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m esteira.topology", description=__doc__)
    parser.add_argument("--every", type=float, metavar="SECONDS", help="apply it again and again, with this pause")
    parser.add_argument("--heartbeat", type=Path, metavar="FILE", help="touched whenever --every has applied it")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
