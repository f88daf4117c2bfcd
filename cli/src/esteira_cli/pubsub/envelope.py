"""The JSON body of a push, and what Pub/Sub adds to a dead letter."""

import base64
import datetime as dt
import json

from esteira_cli.pubsub.records import Delivery


def push_body(subscription: str, delivery: Delivery, with_attempt: bool) -> bytes:
    """Writes the wrapped push body.

    Keys with nothing to say (no data, no attributes, no ordering key) are left out, as Pub/Sub does;
    `deliveryAttempt` comes only `with_attempt`, that is with a dead-letter policy.
    """
    content = delivery.content
    published = utc_text(delivery.publish_time) + "Z"
    message_id = str(delivery.lease.message_id)
    message: dict[str, object] = {"messageId": message_id, "message_id": message_id}
    message |= {"publishTime": published, "publish_time": published}
    if content.data:
        message["data"] = base64.b64encode(content.data).decode("ascii")
    if content.attributes:
        message["attributes"] = content.attributes
    if content.ordering_key:
        message["orderingKey"] = content.ordering_key
    body: dict[str, object] = {"message": message, "subscription": subscription}
    if with_attempt:
        body["deliveryAttempt"] = delivery.lease.attempt
    return json.dumps(body).encode()


def dead_letter_attributes(subscription: str, attempts: int, publish_time: float) -> dict[str, str]:
    """Returns the attributes that tell where a dead letter comes from.

    Args:
        subscription: `projects/<project>/subscriptions/<name>`.
        attempts: how often its delivery was tried.
        publish_time: when it was first published, seconds since the epoch.
    """
    _, project, _, name = subscription.split("/")
    return {
        "CloudPubSubDeadLetterSourceDeliveryCount": str(attempts),
        "CloudPubSubDeadLetterSourceSubscription": name,
        "CloudPubSubDeadLetterSourceSubscriptionProject": project,
        "CloudPubSubDeadLetterSourceTopicPublishTime": utc_text(publish_time) + "+00:00",
    }


def utc_text(seconds: float) -> str:
    """Returns a moment in UTC, to the millisecond, without its zone."""
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds")
