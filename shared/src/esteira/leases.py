"""Leases with a fence: long work has one owner at a time, and a former owner's writes are refused.

A row with the columns `lease_until`, `fence` and `attempts` is claimed by raising its fence. Whoever works on it
calls `held` in the transaction of each effect: that locks the row and compares the fence (M. Kleppmann, *How to do
distributed locking*, 2016). Times are Postgres's own.
"""

import logging
from datetime import timedelta
from threading import Event, Thread
from types import TracebackType
from typing import Any

from sqlalchemy import Column, ColumnElement, Engine, Table, and_, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from esteira.exceptions import LeaseLost, TransientError

logger = logging.getLogger(__name__)


class Lease:
    """The right to work on one row, until it expires and another worker claims it.

    A worker that is started with a fence from elsewhere (a job) makes its own `Lease` of it.
    """

    def __init__(self, table: Table, key: Any, fence: int, seconds: float, attempts: int = 1) -> None:
        self.table = table
        self.key = key
        self.fence = fence
        self.seconds = seconds
        self.attempts = attempts
        self._lost = Event()

    @property
    def lost(self) -> bool:
        """Whether a heartbeat found that another worker holds the lease; long work looks now and then."""
        return self._lost.is_set()

    def mark_lost(self) -> None:
        """Remembers the loss."""
        self._lost.set()

    def is_mine(self) -> ColumnElement[bool]:
        """The condition that each later write to the row carries."""
        return and_(_key_column(self.table) == self.key, self.table.c.fence == self.fence)

    def __repr__(self) -> str:
        return f"Lease({self.table.name} {self.key}, fence {self.fence})"


def claim(session: Session, table: Table, key: Any, seconds: float, *conditions: ColumnElement[bool]) -> Lease | None:
    """Takes the row with primary key `key`, unless another holds it; commit before the work begins.

    Args:
        conditions: what must hold besides, such as `table.c.status == "pending"`.
    """
    free = or_(table.c.lease_until.is_(None), table.c.lease_until < func.clock_timestamp())
    taken = {"lease_until": _until(seconds), "fence": table.c.fence + 1, "attempts": table.c.attempts + 1}
    statement = update(table).where(_key_column(table) == key, free, *conditions).values(taken)
    row = session.execute(statement.returning(table.c.fence, table.c.attempts)).first()
    return None if row is None else Lease(table, key, row.fence, seconds, row.attempts)


def extend(session: Session, lease: Lease) -> None:
    """Keeps the lease for its seconds from now on.

    Raises:
        LeaseLost: another worker claimed the row.
    """
    _write(session, lease, _until(lease.seconds))


def release(session: Session, lease: Lease) -> None:
    """Gives the lease back, so that the next claim need not wait for its end.

    Raises:
        LeaseLost: another worker claimed the row.
    """
    _write(session, lease, None)


def held(session: Session, lease: Lease) -> None:
    """Makes sure that the lease is still ours, and stays so until the transaction ends.

    Raises:
        LeaseLost: another worker claimed the row.
    """
    row = session.execute(select(lease.table.c.fence).where(lease.is_mine()).with_for_update()).first()
    if row is None:
        _lose(lease)


class Heartbeat:
    """Extends a lease from a thread while the block runs; says `lease.lost` once another worker has it.

    An outage of Postgres is waited out: the fence protects the effects, whatever the clock says.
    """

    def __init__(self, engine: Engine, lease: Lease) -> None:
        self._engine = engine
        self._lease = lease
        self._done = Event()
        self._thread = Thread(target=self._run, name=f"heartbeat-{lease.key}", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self._lease

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(self._lease.seconds)

    def _run(self) -> None:
        while not self._done.wait(self._lease.seconds / 3):
            try:
                with Session(self._engine) as session, session.begin():
                    extend(session, self._lease)
            except LeaseLost:
                logger.warning("lease lost", extra={"lease": repr(self._lease)})
                return
            except (SQLAlchemyError, TransientError) as error:
                logger.warning("lease not extended", extra={"lease": repr(self._lease), "error": str(error)})


def _write(session: Session, lease: Lease, lease_until: Any) -> None:
    statement = update(lease.table).where(lease.is_mine()).values(lease_until=lease_until)
    if session.execute(statement.returning(lease.table.c.fence)).first() is None:
        _lose(lease)


def _lose(lease: Lease) -> None:
    lease.mark_lost()
    raise LeaseLost(f"{lease} is held by another worker: drop this work, the other one does it")


def _until(seconds: float) -> Any:
    return func.clock_timestamp() + timedelta(seconds=seconds)


def _key_column(table: Table) -> Column[Any]:
    (column,) = table.primary_key.columns
    return column
