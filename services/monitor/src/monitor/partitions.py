"""Day partitions of `predictions`, made before they are needed or when they are."""

import logging
from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from esteira.exceptions import Unavailable
from monitor import repository

logger = logging.getLogger(__name__)

MAX_AGE = timedelta(days=31)


class Partitions:
    """Sees to days. The default partition takes whatever has none of its own, so that nothing is refused."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._seen_to: set[date] = set()

    def prepare(self) -> None:
        """Makes today's and tomorrow's: a day's partition cannot be made once the default one has rows of it."""
        today = datetime.now(UTC).date()
        self.ensure({today, today + timedelta(days=1)})

    def ensure(self, days: Collection[date]) -> None:
        """Makes the partitions of `days`, unless they are too far from today to deserve one.

        Raises:
            Unavailable: Postgres does not answer.
        """
        today = datetime.now(UTC).date()
        for day in sorted(set(days) - self._seen_to):
            if today - MAX_AGE <= day <= today + timedelta(days=1):
                self._ensure(day)
            else:
                self._seen_to.add(day)

    def _ensure(self, day: date) -> None:
        with Session(self._engine) as session:
            if repository.has_partition(session, day):
                self._seen_to.add(day)
                return
        try:
            with Session(self._engine) as session, session.begin():
                repository.create_partition(session, day)
        except (IntegrityError, Unavailable) as error:
            logger.warning("partition not created", extra={"day": day.isoformat(), "error": str(error)})
