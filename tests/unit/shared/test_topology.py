"""Where messages are pushed is told in one variable, and what is wrong with it is said."""

import pytest

from esteira.exceptions import SettingsInvalid
from esteira.topology import SUBSCRIPTIONS, TOPICS, dead_letter_topic, parse_endpoints

HEARERS = sorted({subscription.hearer for subscription in SUBSCRIPTIONS})


def test_endpoints_are_read_by_name() -> None:
    text = ", ".join(f"{name}=http://{name}:8080" for name in HEARERS)
    assert parse_endpoints(text) == {name: f"http://{name}:8080" for name in HEARERS}


def test_a_hearer_without_an_address_is_named() -> None:
    with pytest.raises(SettingsInvalid, match=HEARERS[0]):
        parse_endpoints(",".join(f"{name}=http://{name}:8080" for name in HEARERS[1:]))


@pytest.mark.parametrize("text", ["", "etl", "etl=etl:8080", "http://etl:8080", "etl=http://etl:8080,", "=http://etl"])
def test_another_form_is_shown_with_the_one_that_is_right(text: str) -> None:
    with pytest.raises(SettingsInvalid, match="not of the form etl=http://etl:8080"):
        parse_endpoints(text)


def test_ack_deadlines_and_attempts_are_such_as_pubsub_takes() -> None:
    for subscription in SUBSCRIPTIONS:
        assert 10 <= subscription.ack_deadline_s <= 600
        assert 5 <= subscription.max_attempts <= 100
        assert 0 <= subscription.min_backoff_s <= subscription.max_backoff_s <= 600


def test_no_topic_is_another_ones_dead_letter_topic() -> None:
    assert not set(TOPICS) & set(map(dead_letter_topic, TOPICS))
