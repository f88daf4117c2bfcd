"""What etl does when it is told something, or when the timer calls."""

import logging
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from esteira.bucket import Bucket
from esteira.events import RawDataUploaded
from esteira.exceptions import UnknownPipeline
from esteira.inbox import forget_received
from esteira.outbox import Relay, forget_published
from esteira.pushes import Delivery
from etl.ingest import Ingestor
from etl.repository import Repository

logger = logging.getLogger(__name__)

RAW = "raw/"
FINALIZE = "OBJECT_FINALIZE"
REMEMBERED = timedelta(days=14)
"""Longer than Pub/Sub keeps a message."""
RECONCILE_FILES = 20
RECONCILE_SECONDS = 120.0
_CHUNK = 1000


class Handlers:
    """The handlers of etl. Threads may share them."""

    def __init__(
        self, engine: Engine, bucket: Bucket, ingestor: Ingestor, relay: Relay, pipelines: Iterable[str]
    ) -> None:
        self._engine = engine
        self._bucket = bucket
        self._ingestor = ingestor
        self._relay = relay
        self._pipelines = sorted(pipelines)

    def ready(self) -> None:
        """Raises `esteira.exceptions.Unavailable` while Postgres does not answer."""
        with self._engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1")

    def receive(self, event: RawDataUploaded, delivery: Delivery) -> None:
        """Ingests an object below `raw/<pipeline>/`; passes over all others."""
        pipeline = pipeline_of(event.object)
        if pipeline is None or event.bucket != self._bucket.name or not _is_finalize(delivery):
            logger.info("object passed over", extra={"bucket": event.bucket, "object": event.object})
            return
        with Session(self._engine) as session, session.begin():
            ingestion_id = Repository(session).record(pipeline, event.bucket, event.object, event.generation)
        self._ingestor.ingest(ingestion_id)
        self._relay.flush()

    def reconcile(self) -> dict[str, int]:
        """Finds work by state: messages not sent, files that a worker left, objects that nobody announced.

        Returns:
            How many messages were `published`, objects `found`, files `ingested` or `postponed`, old rows `forgotten`.
        """
        deadline = time.monotonic() + RECONCILE_SECONDS
        published = self._relay.flush()
        found = self._record_unannounced()
        ingested, postponed = self._ingest_abandoned(deadline)
        published += self._relay.flush()
        counts = {"published": published, "found": found, "ingested": ingested, "postponed": postponed}
        return counts | {"forgotten": self._forget()}

    def ingestions(self, pipeline: str) -> list[dict[str, Any]]:
        """The newest ingestions of a pipeline, newest first; of a name without a pipeline, where files were refused.

        Raises:
            UnknownPipeline: no pipeline and no file has that name.
        """
        with Session(self._engine) as session:
            found = Repository(session).latest_ingestions(pipeline) if "\0" not in pipeline else []
        if not found and pipeline not in self._pipelines:
            raise UnknownPipeline(f"there is no pipeline {pipeline!r}; known pipelines: {', '.join(self._pipelines)}")
        return found

    def _record_unannounced(self) -> int:
        """Gives objects without an ingestion theirs, as many as one call may then ingest."""
        objects = [(found.path, found.generation) for found in self._bucket.list(RAW) if pipeline_of(found.path)]
        recorded = 0
        for start in range(0, len(objects), _CHUNK):
            with Session(self._engine) as session, session.begin():
                repository = Repository(session)
                missing = repository.unrecorded(self._bucket.name, objects[start : start + _CHUNK])
                for path, generation in missing[: RECONCILE_FILES - recorded]:
                    repository.record(str(pipeline_of(path)), self._bucket.name, path, generation)
                    recorded += 1
            if recorded >= RECONCILE_FILES:
                break
        return recorded

    def _ingest_abandoned(self, deadline: float) -> tuple[int, int]:
        with Session(self._engine) as session:
            waiting = Repository(session).abandoned(RECONCILE_FILES)
        ingested = postponed = 0
        for ingestion_id in waiting:
            if time.monotonic() < deadline and self._ingested(ingestion_id):
                ingested += 1
            else:
                postponed += 1
        return ingested, postponed

    def _ingested(self, ingestion_id: UUID) -> bool:
        """One file's trouble does not hold up the others."""
        try:
            self._ingestor.ingest(ingestion_id)
        except Exception:
            logger.warning("file not ingested yet", extra={"ingestion_id": str(ingestion_id)}, exc_info=True)
            return False
        return True

    def _forget(self) -> int:
        with Session(self._engine) as session, session.begin():
            return forget_received(session, REMEMBERED) + forget_published(session, REMEMBERED)


def pipeline_of(path: str) -> str | None:
    """The pipeline that an object is for; None where the object is no file below `raw/<pipeline>/`."""
    folder, _, name = path.removeprefix(RAW).partition("/")
    is_file = path.startswith(RAW) and folder and name and not name.endswith("/")
    return folder if is_file and "\0" not in path else None


def _is_finalize(delivery: Delivery) -> bool:
    return delivery.attributes.get("eventType", FINALIZE) == FINALIZE
