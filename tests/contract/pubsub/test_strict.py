"""Where Google's emulator forgives and Pub/Sub does not: run on ours alone."""

import base64
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import google.auth.transport.requests
import pytest
import requests
from google.api_core import exceptions
from google.oauth2 import id_token

from contract.pubsub.receiver import Answer, Receiver, wait_until
from contract.pubsub.target import Ours

Receive = Callable[[Answer], Receiver]


@pytest.mark.parametrize("status", [102, 202])
def test_all_success_answers_of_pubsub_acknowledge(ours: Ours, receive: Receive, status: int) -> None:
    receiver = receive(lambda _: status)
    topic = ours.target.topic()
    subscription = ours.target.subscription(topic, receiver.url)
    ours.target.publish(topic, b"x")
    wait_until(lambda: ours.status(subscription)["acked"] == 1, "one acknowledgement")
    assert len(receiver.pushes) == 1


@pytest.mark.parametrize("status", [203, 206, 302, 429])
def test_any_other_answer_is_a_refusal(ours: Ours, receive: Receive, status: int) -> None:
    answers = iter([status])
    receiver = receive(lambda _: next(answers, 204))
    topic = ours.target.topic()
    ours.target.subscription(topic, receiver.url)
    ours.target.publish(topic, b"x")
    first, second = receiver.wait_for(2)
    assert first.message_id == second.message_id


def test_delivery_attempt_is_counted_with_a_dead_letter_policy(ours: Ours, receive: Receive) -> None:
    receiver = receive(lambda _: 500)
    topic, dead_topic = ours.target.topic(), ours.target.topic()
    dead = ours.target.subscription(dead_topic)
    policy = {"dead_letter_topic": dead_topic, "max_delivery_attempts": 6}
    subscription = ours.target.subscription(topic, receiver.url, dead_letter_policy=policy)
    ours.target.publish(topic, b"x")
    (letter,) = ours.target.pull(dead)
    assert [push.body["deliveryAttempt"] for push in receiver.pushes] == [1, 2, 3, 4, 5, 6]
    attributes = dict(letter.message.attributes)
    published = attributes.pop("CloudPubSubDeadLetterSourceTopicPublishTime")
    assert published.endswith("+00:00")
    assert attributes == {
        "CloudPubSubDeadLetterSourceDeliveryCount": "6",
        "CloudPubSubDeadLetterSourceSubscription": subscription.rpartition("/")[2],
        "CloudPubSubDeadLetterSourceSubscriptionProject": "contract",
    }


def test_pulled_message_is_dead_lettered_after_the_allowed_attempts(ours: Ours) -> None:
    topic, dead_topic = ours.target.topic(), ours.target.topic()
    dead = ours.target.subscription(dead_topic)
    policy = {"dead_letter_topic": dead_topic, "max_delivery_attempts": 5}
    subscription = ours.target.subscription(topic, dead_letter_policy=policy)
    ours.target.publish(topic, b"poison")
    attempts = []
    for _ in range(5):
        received = ours.target.pull(subscription)
        attempts.append(received[0].delivery_attempt)
        ours.target.release(subscription, received)
    assert attempts == [1, 2, 3, 4, 5]
    assert [letter.message.data for letter in ours.target.pull(dead)] == [b"poison"]
    assert ours.target.pull(subscription, timeout_s=0.3) == []


def test_retry_policy_spaces_the_attempts_exponentially(ours: Ours, receive: Receive) -> None:
    answers = iter([503, 503, 503])
    receiver = receive(lambda _: next(answers, 204))
    topic = ours.target.topic()
    policy = {"minimum_backoff": {"nanos": 200_000_000}, "maximum_backoff": {"nanos": 400_000_000}}
    ours.target.subscription(topic, receiver.url, retry_policy=policy)
    ours.target.publish(topic, b"x")
    times = [push.at for push in receiver.wait_for(4)]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert [wait >= least for wait, least in zip(waits, [0.2, 0.4, 0.4], strict=True)] == [True, True, True]
    assert waits[2] < 0.79


def test_message_is_not_pushed_again_while_its_handler_runs(ours: Ours, receive: Receive) -> None:
    def slow(_: Any) -> int:
        time.sleep(1.5)
        return 204

    receiver = receive(slow)
    topic = ours.target.topic()
    subscription = ours.target.subscription(topic, receiver.url)
    ours.target.publish(topic, b"x")
    wait_until(lambda: ours.status(subscription)["acked"] == 1, "one acknowledgement")
    assert len(receiver.pushes) == 1


def test_slow_subscription_does_not_hold_up_another(ours: Ours, receive: Receive) -> None:
    def stuck(_: Any) -> int:
        time.sleep(2)
        return 204

    slow, quick = receive(stuck), receive(lambda _: 204)
    topic = ours.target.topic()
    ours.target.subscription(topic, slow.url)
    subscription = ours.target.subscription(topic, quick.url)
    ours.target.publish(topic, *[b"x"] * 30)
    wait_until(lambda: ours.status(subscription)["acked"] == 30, "thirty acknowledgements", timeout_s=1.9)
    assert len(slow.pushes) == 8


def test_push_carries_a_token_that_google_auth_accepts(ours: Ours, receive: Receive) -> None:
    receiver = receive(lambda _: 204)
    topic = ours.target.topic()
    token = {"service_account_email": "push@contract.iam.gserviceaccount.com", "audience": "https://etl.example"}
    name = f"{topic.replace('/topics/', '/subscriptions/')}-oidc"
    config = {"push_endpoint": receiver.url, "oidc_token": token}
    ours.target.subscriber.create_subscription(request={"name": name, "topic": topic, "push_config": config})
    ours.target.publish(topic, b"x")
    scheme, _, jwt = receiver.wait_for(1)[0].headers["Authorization"].partition(" ")
    with requests.Session() as session:
        transport = google.auth.transport.requests.Request(session=session)
        certs_url = f"{ours.url}/oauth2/v1/certs"
        claims = id_token.verify_token(jwt, transport, audience="https://etl.example", certs_url=certs_url)
        with pytest.raises(ValueError, match="audience"):
            id_token.verify_token(jwt, transport, audience="https://other.example", certs_url=certs_url)
    assert scheme == "Bearer"
    assert claims["iss"] == "https://accounts.google.com"
    assert (claims["email"], claims["email_verified"]) == (token["service_account_email"], True)
    assert claims["exp"] - claims["iat"] == 3600


def test_push_without_a_token_config_has_no_authorization(ours: Ours, receive: Receive) -> None:
    receiver = receive(lambda _: 204)
    topic = ours.target.topic()
    ours.target.subscription(topic, receiver.url)
    ours.target.publish(topic, b"x")
    assert "Authorization" not in receiver.wait_for(1)[0].headers


def test_what_is_not_supported_is_refused_aloud(ours: Ours) -> None:
    topic = ours.target.topic()
    with pytest.raises(exceptions.MethodNotImplemented, match="filter"):
        ours.target.subscription(topic, filter='attributes.a = "b"')
    with pytest.raises(exceptions.MethodNotImplemented, match="Seek"):
        ours.target.subscriber.seek(request={"subscription": ours.target.subscription(topic)})


def test_limits_of_pubsub_are_held(ours: Ours) -> None:
    topic = ours.target.topic()
    with pytest.raises(exceptions.InvalidArgument, match="10000000"):
        ours.target.publish(topic, b"x" * 10_000_001)
    with pytest.raises(exceptions.InvalidArgument, match="at most 100 attributes"):
        ours.target.publish(topic, b"x", **{f"k{number}": "v" for number in range(101)})
    with pytest.raises(exceptions.InvalidArgument, match="10 to 600"):
        ours.target.subscription(topic, ack_deadline_seconds=9)
    with pytest.raises(exceptions.InvalidArgument, match="5 to 100"):
        ours.target.subscription(topic, dead_letter_policy={"dead_letter_topic": topic, "max_delivery_attempts": 4})


def test_what_was_published_before_kill_9_is_delivered_after(own: Ours) -> None:
    topic = own.target.topic()
    subscription = own.target.subscription(topic)
    confirmed: list[str] = []

    def publish_until_killed() -> None:
        while True:
            confirmed.extend(own.target.publish(topic, b"x", b"y"))

    def kill_amid_publishing() -> None:
        wait_until(lambda: len(confirmed) >= 200, "200 confirmed messages")
        own.process.kill()

    killer = threading.Thread(target=kill_amid_publishing)
    killer.start()
    with pytest.raises(exceptions.GoogleAPICallError):
        publish_until_killed()
    killer.join()
    own.restart()
    received = {message.message.message_id for message in own.target.pull(subscription, len(confirmed), timeout_s=5)}
    assert set(confirmed) <= received


def test_push_under_way_at_kill_9_is_made_again_and_acked_ones_are_not(own: Ours, receive: Receive) -> None:
    waits = iter([3])

    def hang(push: Any) -> int:
        if base64.b64decode(push.body["message"]["data"]) == b"hang":
            time.sleep(next(waits, 0))
        return 204

    receiver = receive(hang)
    topic = own.target.topic()
    subscription = own.target.subscription(topic, receiver.url)
    done = own.target.publish(topic, *[b"quick"] * 10)
    wait_until(lambda: own.status(subscription)["acked"] == 10, "ten acknowledgements")
    (hanging,) = own.target.publish(topic, b"hang")
    receiver.wait_for(11)
    own.restart()
    wait_until(lambda: own.status(subscription)["outstanding"] == 0, "an empty backlog")
    assert Counter(push.message_id for push in receiver.pushes) == {**dict.fromkeys(done, 1), hanging: 2}


def test_dead_endpoint_loses_nothing(own: Ours, receive: Receive) -> None:
    receiver = receive(lambda _: 204)
    url = receiver.url
    receiver.close()
    topic = own.target.topic()
    subscription = own.target.subscription(topic, url)
    ids = own.target.publish(topic, b"a", b"b")
    wait_until(lambda: own.status(subscription)["delivered"] > 4, "some failed attempts")
    revived = receive(lambda _: 204)
    own.target.subscriber.modify_push_config(subscription=subscription, push_config={"push_endpoint": revived.url})
    wait_until(lambda: own.status(subscription)["acked"] == 2, "two acknowledgements")
    assert sorted(push.message_id for push in revived.pushes) == sorted(ids)


def test_key_and_next_try_survive_a_restart(own: Ours, receive: Receive) -> None:
    receiver = receive(lambda _: 503)
    topic = own.target.topic()
    policy = {"minimum_backoff": {"seconds": 300}, "maximum_backoff": {"seconds": 300}}
    subscription = own.target.subscription(topic, receiver.url, retry_policy=policy)
    own.target.publish(topic, b"x")
    receiver.wait_for(1)
    keys = requests.get(f"{own.url}/oauth2/v3/certs", timeout=5).json()
    wait_until(lambda: b"Push refused" in (own.state_dir.parent / "emulator.log").read_bytes(), "the refusal")
    assert own.process.terminate() == 0
    own.start()
    probe = own.target.subscription(topic, receiver.url)
    own.target.publish(topic, b"y")
    wait_until(lambda: own.status(probe)["delivered"] >= 1, "a push after the restart")
    assert requests.get(f"{own.url}/oauth2/v3/certs", timeout=5).json() == keys
    assert own.status(subscription)["outstanding"] == 2
    assert Counter(base64.b64decode(push.body["message"]["data"]) for push in receiver.pushes)[b"x"] == 1


def test_second_emulator_on_the_same_state_is_refused(own: Ours) -> None:
    with pytest.raises(AssertionError, match="another Pub/Sub emulator uses this state folder"):
        Ours(own.state_dir.parent)


def test_faults_duplicate_delay_and_reorder_at_run_time(own: Ours, receive: Receive) -> None:
    receiver = receive(lambda _: 204)
    topic = own.target.topic()
    own.target.subscription(topic, receiver.url)
    own.set_faults(duplicate=1, delay_s=[0.3, 0.4], reorder=True)
    started = time.monotonic()
    ids = own.target.publish(topic, *[b"x"] * 20)
    pushes = receiver.wait_for(40)
    assert Counter(push.message_id for push in pushes) == dict.fromkeys(ids, 2)
    assert min(push.at for push in pushes) - started >= 0.3
    order = list(dict.fromkeys(push.message_id for push in pushes))
    assert order != ids
    own.set_faults()
    own.target.publish(topic, b"y")
    receiver.wait_for(41)


def test_unknown_fault_is_refused(ours: Ours) -> None:
    answer = requests.put(f"{ours.url}/faults", json={"explode": 1}, timeout=5)
    assert answer.status_code == 400
    assert "explode" in answer.json()["error"]["message"]
