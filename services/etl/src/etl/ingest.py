"""Takes care that each ingestion is attempted by one worker at a time, again after an outage, and not forever."""

import logging
from contextlib import suppress
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from esteira.exceptions import Busy, LeaseLost, TransientError
from esteira.leases import Heartbeat, Lease
from etl.attempt import Attempts
from etl.repository import Ingestion, Repository, Result

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 5


class Ingestor:
    """Ingests files of all pipelines. Threads may share it."""

    def __init__(self, engine: Engine, attempts: Attempts, lease_seconds: float) -> None:
        self._engine = engine
        self._attempts = attempts
        self._lease_seconds = lease_seconds

    def ingest(self, ingestion_id: UUID) -> None:
        """Does what is left to do for an ingestion; nothing where it is finished.

        Raises:
            Busy: another worker is at it.
            TransientError: it could not be finished now; another attempt may.
        """
        with Session(self._engine) as session, session.begin():
            repository = Repository(session)
            lease = repository.claim(ingestion_id, self._lease_seconds)
            ingestion = repository.ingestion(ingestion_id)
        if lease is not None:
            with Heartbeat(self._engine, lease):
                self._attempt(ingestion, lease)
        elif ingestion.status == "pending":
            raise Busy(f"ingestion {ingestion_id} is in the hands of another worker")

    def _attempt(self, ingestion: Ingestion, lease: Lease) -> None:
        if lease.attempts > MAX_ATTEMPTS:
            self._finish(ingestion, lease, Result(status="failed", reason=_gave_up("each ended without a word")))
            return
        try:
            self._attempts.run(ingestion, lease)
        except LeaseLost:
            raise
        except TransientError as error:
            self._give_back(lease, str(error), counted=False)
            raise
        except Exception as error:
            self._give_up_or_back(ingestion, lease, f"{type(error).__name__}: {error}")
            raise

    def _give_up_or_back(self, ingestion: Ingestion, lease: Lease, reason: str) -> None:
        if lease.attempts >= MAX_ATTEMPTS:
            self._finish(ingestion, lease, Result(status="failed", reason=_gave_up(reason)))
        else:
            self._give_back(lease, reason, counted=True)

    def _give_back(self, lease: Lease, reason: str, counted: bool) -> None:
        """Where Postgres is away too, the lease runs out by itself."""
        with suppress(TransientError), Session(self._engine) as session, session.begin():
            Repository(session).give_back(lease, reason, counted)

    def _finish(self, ingestion: Ingestion, lease: Lease, result: Result) -> None:
        with Session(self._engine) as session, session.begin():
            Repository(session).finish(lease, result)
        facts = {"ingestion_id": str(ingestion.id), "object": ingestion.object, "reason": result.reason}
        logger.error("ingestion given up", extra=facts)


def _gave_up(why: str) -> str:
    return f"gave up after {MAX_ATTEMPTS} attempts: {why}; see the log, mend the cause and upload the file again"
