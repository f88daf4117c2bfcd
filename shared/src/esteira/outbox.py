"""The outbox: a message is a row, committed with its cause, before it is sent.

`enqueue` in the transaction of the effect, `Relay.flush` after the commit and at every reconcile. A crash between
sending and marking sends again with the same `ce-id`, which the hearer's inbox knows.
"""

import logging
from datetime import timedelta
from typing import Any, Protocol

from sqlalchemy import Engine, Row, delete, func, insert, select, update
from sqlalchemy.orm import Session

from esteira.events import Event, Message, encode
from esteira.logs import current_trace
from esteira.tables import outbox

logger = logging.getLogger(__name__)

MAX_WAIT = timedelta(minutes=10)


class Sender(Protocol):
    """What sends messages: `esteira.publisher.Publisher`."""

    def publish_many(self, messages: list[Message]) -> list[Exception | None]:
        """Sends all; for each message, in order, the reason why it was not sent."""


def enqueue(session: Session, event: Event, source: str) -> str:
    """Records that `source` says `event`, with the trace that is bound; returns the event's `ce-id`."""
    message = encode(event, source, current_trace())
    values = {"topic": message.topic, "data": message.data.decode(), "attributes": message.attributes}
    session.execute(insert(outbox).values(values))
    return message.attributes["ce-id"]


class Relay:
    """Publishes what waits in the outbox."""

    def __init__(self, engine: Engine, publisher: Sender, batch: int = 100) -> None:
        self._engine = engine
        self._publisher = publisher
        self._batch = batch

    def flush(self) -> int:
        """Publishes everything that is due, oldest first; returns how many messages were sent.

        Relays may run at once: each takes rows that no other holds. A message that fails waits longer each time
        and does not hold up the others; Pub/Sub being away is logged, not raised, for the rows stay.

        Raises:
            Unavailable: Postgres does not answer.
        """
        sent = 0
        while True:
            taken, published = self._flush_batch()
            sent += published
            if taken < self._batch or not published:
                return sent

    def _flush_batch(self) -> tuple[int, int]:
        with Session(self._engine) as session, session.begin():
            rows = _due(session, self._batch)
            if not rows:
                return 0, 0
            errors = self._publisher.publish_many([_message(row) for row in rows])
            failed = [(row, error) for row, error in zip(rows, errors, strict=True) if error is not None]
            for row, error in failed:
                _postpone(session, row, error)
            _mark(session, {row.id for row in rows} - {row.id for row, _ in failed})
            return len(rows), len(rows) - len(failed)


def forget_published(session: Session, older_than: timedelta) -> int:
    """Deletes rows that were published before `older_than` ago; returns how many."""
    result = session.execute(delete(outbox).where(outbox.c.published_at < func.now() - older_than))
    return int(result.rowcount)  # type: ignore[attr-defined]


def _due(session: Session, limit: int) -> list[Row[Any]]:
    waiting = select(outbox).where(outbox.c.published_at.is_(None), outbox.c.due_at <= func.clock_timestamp())
    return list(session.execute(waiting.order_by(outbox.c.id).limit(limit).with_for_update(skip_locked=True)))


def _message(row: Row[Any]) -> Message:
    return Message(row.topic, row.data.encode(), row.attributes)


def _mark(session: Session, ids: set[int]) -> None:
    if ids:
        session.execute(update(outbox).where(outbox.c.id.in_(ids)).values(published_at=func.clock_timestamp()))


def _postpone(session: Session, row: Row[Any], error: Exception) -> None:
    wait = min(timedelta(seconds=2 ** min(row.attempts, 30)), MAX_WAIT)
    facts = {"outbox_id": row.id, "topic": row.topic, "attempts": row.attempts + 1, "error": str(error)}
    logger.warning("message not published", extra=facts)
    later = {"attempts": row.attempts + 1, "due_at": func.clock_timestamp() + wait}
    session.execute(update(outbox).where(outbox.c.id == row.id).values(later))
