import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from esteira.events import Message, RetrainRequested
from esteira.exceptions import Unavailable
from esteira.inbox import forget_received, is_first
from esteira.logs import bind_context
from esteira.outbox import Relay, enqueue, forget_published
from esteira.tables import inbox, outbox

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class InMemorySender:
    """Keeps what is sent; refuses what contains `refused`."""

    def __init__(self, refused: bytes = b"\0") -> None:
        self.sent: list[Message] = []
        self.refused = refused
        self.calls = 0

    def publish_many(self, messages: list[Message]) -> list[Exception | None]:
        self.calls += 1
        errors = [Unavailable("away") if self.refused in message.data else None for message in messages]
        self.sent += [message for message, error in zip(messages, errors, strict=True) if error is None]
        return errors


def say(engine, *reasons: str) -> list[str]:
    with Session(engine) as session, session.begin():
        return [
            enqueue(session, RetrainRequested(pipeline="p", reason=reason, requested_by="x"), "monitor")
            for reason in reasons
        ]


def waiting(engine) -> int:
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).where(outbox.c.published_at.is_(None)))


def test_sends_everything_once_in_order(engine):
    ids, sender = say(engine, *map(str, range(25))), InMemorySender()
    relay = Relay(engine, sender, batch=10)
    assert relay.flush() == 25
    assert [message.attributes["ce-id"] for message in sender.sent] == ids
    assert relay.flush() == 0
    assert waiting(engine) == 0


def test_the_trace_travels_with_the_message(engine):
    sender = InMemorySender()
    with bind_context(TRACEPARENT):
        say(engine, "traced")
    Relay(engine, sender).flush()
    assert sender.sent[0].attributes["traceparent"] == TRACEPARENT


def test_what_is_rolled_back_is_never_said(engine):
    with Session(engine) as session, session.begin() as transaction:
        enqueue(session, RetrainRequested(pipeline="p", reason="r", requested_by="x"), "monitor")
        transaction.rollback()
    assert Relay(engine, InMemorySender()).flush() == 0


def test_one_message_that_fails_does_not_hold_up_the_others(engine):
    say(engine, "one", "poison", "two", "three")
    sender = InMemorySender(b"poison")
    assert Relay(engine, sender, batch=2).flush() == 3
    assert waiting(engine) == 1
    calls = sender.calls
    assert Relay(engine, sender).flush() == 0
    assert sender.calls == calls, "it waits before its next attempt"
    with engine.begin() as connection:
        connection.execute(text("UPDATE outbox SET due_at = now() WHERE published_at IS NULL"))
    assert Relay(engine, InMemorySender()).flush() == 1


def test_an_outage_costs_one_attempt_and_no_message(engine):
    say(engine, *map(str, range(30)))
    sender = InMemorySender(b"p")
    assert Relay(engine, sender, batch=10).flush() == 0
    assert (sender.calls, waiting(engine)) == (1, 30)


def test_a_crash_after_sending_sends_again_with_the_same_id(engine):
    (said,) = say(engine, "twice")

    class Dying(InMemorySender):
        def publish_many(self, messages):
            super().publish_many(messages)
            raise SystemExit

    dying, sender = Dying(), InMemorySender()
    with pytest.raises(SystemExit):
        Relay(engine, dying).flush()
    assert Relay(engine, sender).flush() == 1
    assert [message.attributes["ce-id"] for message in dying.sent + sender.sent] == [said, said]


def test_relays_at_once_send_each_message_once(engine):
    ids, sender = say(engine, *map(str, range(200))), InMemorySender()
    relays = [threading.Thread(target=Relay(engine, sender, batch=7).flush) for _ in range(4)]
    for relay in relays:
        relay.start()
    for relay in relays:
        relay.join()
    Relay(engine, sender).flush()
    assert sorted(message.attributes["ce-id"] for message in sender.sent) == sorted(ids)


def test_a_repeated_event_has_one_effect(engine):
    def deliver(event: int) -> bool:
        with Session(engine) as session, session.begin():
            if not is_first(session, "etl", str(event)):
                return False
            say_in(session)
            return True

    def say_in(session: Session) -> None:
        enqueue(session, RetrainRequested(pipeline="p", reason="r", requested_by="x"), "etl")

    with ThreadPoolExecutor(8) as pool:
        effects = list(pool.map(deliver, [number % 20 for number in range(200)]))
    assert (sum(effects), waiting(engine)) == (20, 20)


def test_consumers_hear_the_same_event_each(engine):
    with Session(engine) as session, session.begin():
        assert is_first(session, "etl", "1")
        assert is_first(session, "monitor", "1")
        assert not is_first(session, "etl", "1")


def test_an_event_whose_effect_failed_is_first_again(engine):
    with Session(engine) as session, session.begin() as transaction:
        assert is_first(session, "etl", "1")
        transaction.rollback()
    with Session(engine) as session, session.begin():
        assert is_first(session, "etl", "1")


def test_forgets_what_is_old_and_done(engine):
    say(engine, "sent")
    Relay(engine, InMemorySender()).flush()
    say(engine, "waiting")
    with Session(engine) as session, session.begin():
        is_first(session, "etl", "old")
        session.execute(text("UPDATE outbox SET published_at = published_at - interval '8 days'"))
        session.execute(text("UPDATE inbox SET received_at = now() - interval '40 days'"))
        is_first(session, "etl", "new")
        assert forget_published(session, timedelta(days=7)) == 1
        assert forget_received(session, timedelta(days=31)) == 1
        assert session.scalar(select(func.count()).select_from(outbox)) == 1
        assert session.scalar(select(inbox.c.event_id)) == "new"
