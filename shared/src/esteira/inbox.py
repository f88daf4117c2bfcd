"""The inbox: an event that is delivered again changes nothing."""

from datetime import timedelta

from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from esteira.tables import inbox


def is_first(session: Session, consumer: str, event_id: str) -> bool:
    """Records in the transaction of the effect that `consumer` handles the event; False where it did before.

    A second delivery at the same time waits here until the first commits or rolls back.
    """
    seen = insert(inbox).values(consumer=consumer, event_id=event_id).on_conflict_do_nothing()
    return session.execute(seen.returning(inbox.c.event_id)).first() is not None


def forget_received(session: Session, older_than: timedelta) -> int:
    """Deletes records older than `older_than`, which must exceed the retention of messages; returns how many."""
    result = session.execute(delete(inbox).where(inbox.c.received_at < func.now() - older_than))
    return int(result.rowcount)  # type: ignore[attr-defined]
