"""What holds on any Pub/Sub: run on our emulator and on Google's."""

import base64
from collections.abc import Callable

import pytest
from google.api_core import exceptions

from contract.pubsub.receiver import Answer, Receiver, wait_until
from contract.pubsub.target import PROJECT, Target

Receive = Callable[[Answer], Receiver]


def test_published_messages_are_pulled_with_their_attributes(target: Target) -> None:
    topic = target.topic()
    subscription = target.subscription(topic)
    ids = target.publish(topic, b"one", b"\x00\xff", colour="grün")
    received = target.pull(subscription, 2)
    assert {message.message.message_id for message in received} == set(ids)
    assert {message.message.data for message in received} == {b"one", b"\x00\xff"}
    assert all(dict(message.message.attributes) == {"colour": "grün"} for message in received)


def test_acknowledged_message_does_not_come_again(target: Target) -> None:
    topic = target.topic()
    subscription = target.subscription(topic)
    target.publish(topic, b"once")
    target.acknowledge(subscription, target.pull(subscription))
    assert target.pull(subscription, timeout_s=0.5) == []


def test_released_message_comes_again(target: Target) -> None:
    topic = target.topic()
    subscription = target.subscription(topic)
    ids = target.publish(topic, b"again")
    target.release(subscription, target.pull(subscription))
    assert [message.message.message_id for message in target.pull(subscription)] == ids


def test_expired_lease_is_delivered_again(target: Target) -> None:
    topic = target.topic()
    subscription = target.subscription(topic)
    ids = target.publish(topic, b"late")
    target.release(subscription, target.pull(subscription), seconds=1)
    assert [message.message.message_id for message in target.pull(subscription)] == ids


def test_each_subscription_gets_each_message(target: Target) -> None:
    topic = target.topic()
    first, second = target.subscription(topic), target.subscription(topic)
    ids = target.publish(topic, b"both")
    assert [[message.message.message_id for message in target.pull(name)] for name in (first, second)] == [ids, ids]


def test_streaming_subscriber_receives_and_acknowledges(target: Target) -> None:
    topic = target.topic()
    subscription = target.subscription(topic)
    seen: list[bytes] = []

    def callback(message: object) -> None:
        seen.append(message.data)  # type: ignore[attr-defined]
        message.ack()  # type: ignore[attr-defined]

    stream = target.subscriber.subscribe(subscription, callback=callback)
    target.publish(topic, b"a", b"b", b"c")
    wait_until(lambda: len(seen) >= 3, "three messages")
    stream.cancel()
    stream.result(timeout=10)
    assert sorted(seen) == [b"a", b"b", b"c"]


def test_push_has_the_envelope_of_pubsub(target: Target, receive: Receive) -> None:
    receiver = receive(lambda _: 204)
    topic = target.topic()
    subscription = target.subscription(topic, receiver.url)
    (message_id,) = target.publish(topic, b'{"x":1}', **{"ce-id": "7"})
    (push,) = receiver.wait_for(1)
    message = push.body["message"]
    assert set(push.body) == {"message", "subscription"}
    assert set(message) == {"data", "attributes", "messageId", "message_id", "publishTime", "publish_time"}
    assert push.body["subscription"] == subscription
    assert base64.b64decode(message["data"]) == b'{"x":1}'
    assert message["attributes"] == {"ce-id": "7"}
    assert message["messageId"] == message["message_id"] == message_id
    assert push.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("status", [200, 201, 204])
def test_push_answered_with_success_is_not_repeated(target: Target, receive: Receive, status: int) -> None:
    receiver = receive(lambda _: status)
    topic = target.topic()
    target.subscription(topic, receiver.url)
    target.publish(topic, b"first")
    receiver.wait_for(1)
    target.publish(topic, b"second")
    ids = [push.message_id for push in receiver.wait_for(2)]
    assert len(set(ids)) == len(ids) == 2


def test_push_answered_with_an_error_is_repeated_until_success(target: Target, receive: Receive) -> None:
    answers = iter([500, 503, 404])
    receiver = receive(lambda _: next(answers, 204))
    topic = target.topic()
    target.subscription(topic, receiver.url)
    target.publish(topic, b"stubborn")
    pushes = receiver.wait_for(4)
    assert len({push.message_id for push in pushes}) == 1


def test_message_is_dead_lettered_after_exactly_the_allowed_attempts(target: Target, receive: Receive) -> None:
    receiver = receive(lambda _: 500)
    topic, dead_topic = target.topic(), target.topic()
    dead = target.subscription(dead_topic)
    policy = {"dead_letter_topic": dead_topic, "max_delivery_attempts": 5}
    target.subscription(topic, receiver.url, dead_letter_policy=policy)
    target.publish(topic, b"poison", kind="bad")
    (letter,) = target.pull(dead)
    assert letter.message.data == b"poison"
    assert letter.message.attributes["kind"] == "bad"
    assert len(receiver.pushes) == 5


def test_names_are_taken_once(target: Target) -> None:
    topic = target.topic()
    subscription = target.subscription(topic)
    with pytest.raises(exceptions.AlreadyExists):
        target.publisher.create_topic(name=topic)
    with pytest.raises(exceptions.AlreadyExists):
        target.subscriber.create_subscription(name=subscription, topic=topic)


def test_unknown_names_are_not_found(target: Target) -> None:
    unknown = f"projects/{PROJECT}/topics/never-made"
    with pytest.raises(exceptions.NotFound):
        target.publish(unknown, b"x")
    with pytest.raises(exceptions.NotFound):
        target.subscription(unknown)
    with pytest.raises(exceptions.NotFound):
        target.subscriber.get_subscription(subscription=f"projects/{PROJECT}/subscriptions/never-made")


def test_deleted_topic_and_subscription_are_gone(target: Target) -> None:
    topic = target.topic()
    subscription = target.subscription(topic)
    target.subscriber.delete_subscription(subscription=subscription)
    target.publisher.delete_topic(topic=topic)
    with pytest.raises(exceptions.NotFound):
        target.publisher.get_topic(topic=topic)
    with pytest.raises(exceptions.NotFound):
        target.subscriber.get_subscription(subscription=subscription)


def test_lists_name_what_there_is(target: Target) -> None:
    topic = target.topic()
    subscription = target.subscription(topic)
    assert topic in [found.name for found in target.publisher.list_topics(project=f"projects/{PROJECT}")]
    assert subscription in [found.name for found in target.subscriber.list_subscriptions(project=f"projects/{PROJECT}")]
    assert list(target.publisher.list_topic_subscriptions(topic=topic)) == [subscription]


def test_empty_message_and_short_name_are_invalid(target: Target) -> None:
    topic = target.topic()
    with pytest.raises(exceptions.InvalidArgument):
        target.publish(topic, b"")
    with pytest.raises(exceptions.InvalidArgument):
        target.publisher.create_topic(name=f"projects/{PROJECT}/topics/ab")


def test_subscription_can_be_turned_to_pull(target: Target, receive: Receive) -> None:
    receiver = receive(lambda _: 204)
    topic = target.topic()
    subscription = target.subscription(topic, receiver.url)
    target.subscriber.modify_push_config(subscription=subscription, push_config={})
    target.publish(topic, b"pulled")
    assert [message.message.data for message in target.pull(subscription)] == [b"pulled"]
    assert receiver.pushes == []
