"""Every answered prediction on its way to Pub/Sub: a worker's part of it.

An answer is written to the spool before it is given; the keeper publishes what lies there (`predictor.publishing`). So
a worker that is killed loses nothing that it answered. A release whose pipeline wants `delivery: strict` is answered
only once Pub/Sub has its predictions.
"""

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from esteira.publisher import Publisher
from esteira_kernel.answers import RECORD_ROWS
from predictor.publishing import make_message
from predictor.sampling import Sampler
from predictor.spool import SPOOL_BYTES, Header, Record, SpoolWriter
from predictor.state import LogState, StateFolder

logger = logging.getLogger(__name__)

COMPLAIN_SECONDS = 60.0
RECORD_BYTES = 4 << 20
"""Of a record of several predictions, at most: it is published whole, and Pub/Sub takes 10 MB."""


class LoggedPrediction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A prediction as `esteira.events.Prediction` reads it; its id is text already."""

    id: str
    entity: str | None
    event_time: datetime
    served_at: datetime
    score: float
    features: Sequence[float | str | None]
    """In the order of the release's, before encoding."""
    row: dict[str, Any] | None = None


class LogCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of predictions."""

    added: int
    """That this worker answered."""
    pending: int
    """Of them, those that Pub/Sub does not have yet."""
    lost: int
    """Of them, those that could not be written to the spool."""
    keeper: LogState
    """What was published for all workers."""


class PredictionLog:
    """The log of one worker process.

    Args:
        publisher: to Pub/Sub, for predictions that must be there before they are answered.
        root: holds the spools of all workers that publish to the same project.
        sampler: chooses the predictions whose raw row is logged too.
        spool_bytes: how much may wait for Pub/Sub.
        state: where the keeper tells what it has published.
    """

    def __init__(
        self,
        publisher: Publisher,
        root: Path,
        sampler: Sampler | None = None,
        spool_bytes: int = SPOOL_BYTES,
        state: StateFolder | None = None,
    ) -> None:
        self.sampler = sampler or Sampler(0)
        self._publisher = publisher
        self._writer = SpoolWriter(root, spool_bytes)
        self._state = state
        self._lock = threading.Lock()
        self._complained = -COMPLAIN_SECONDS
        self.added = 0
        self.lost = 0
        self._strict = 0

    def add(
        self,
        pipeline: str,
        model_version: str,
        predictions: Sequence[LoggedPrediction],
        microseconds: int = 0,
        *,
        strict: bool = False,
        shadow: bool = False,
    ) -> None:
        """Takes predictions over, and the time that was spent on them; they are on disk when this returns.

        Args:
            strict: they are published when this returns, and are in no spool.
            shadow: nobody was answered with them.

        Raises:
            Unavailable: `strict`, and Pub/Sub does not answer.
        """
        parts = [predictions[start : start + RECORD_ROWS] for start in range(0, len(predictions), RECORD_ROWS)]
        records = [record for part in parts for record in _encode(part)]
        self.write(pipeline, model_version, records, microseconds, strict=strict, shadow=shadow)

    def write(
        self,
        pipeline: str,
        model_version: str,
        records: Iterable[tuple[int, bytes]],
        microseconds: int = 0,
        *,
        strict: bool = False,
        shadow: bool = False,
    ) -> None:
        """`add` of what is JSON already: so many predictions each, at most `RECORD_ROWS`, with commas between them."""
        for rows, predictions in records:
            header = Header(pipeline, model_version, rows, microseconds, shadow=shadow)
            microseconds = 0
            if strict:
                self._publish_now(Record(header, predictions))
            else:
                self._append(header, predictions)

    def count_failures(self, pipeline: str, model_version: str, rows: int, *, shadow: bool = False) -> None:
        """Counts rows that a challenger could not answer; told with the next predictions."""
        self._append(Header(pipeline, model_version, failures=rows, shadow=shadow), b"")

    def counts(self) -> LogCounts:
        """What became of this worker's predictions, and what the keeper did."""
        keeper = self._state.read_log() if self._state else LogState()
        folder = self._writer.folder
        settled = keeper.settled.get(folder.name, 0) if folder else 0
        with self._lock:
            pending = self.added - self.lost - self._strict - settled
            return LogCounts(added=self.added, pending=max(pending, 0), lost=self.lost, keeper=keeper)

    def _append(self, header: Header, predictions: bytes) -> None:
        try:
            self._writer.append(header, predictions)
        except OSError as error:
            self._count_lost(header.rows, str(error))
            return
        with self._lock:
            self.added += header.rows

    def _count_lost(self, rows: int, why: str) -> None:
        """Says so once in a while, not with every request."""
        with self._lock:
            self.added += rows
            self.lost += rows
            due = time.monotonic() - self._complained >= COMPLAIN_SECONDS
            self._complained = time.monotonic() if due else self._complained
        if due:
            facts = {"lost": rows, "lost_in_all": self.lost, "error": why}
            logger.error("predictions lost: not written to the spool", extra=facts)

    def _publish_now(self, record: Record) -> None:
        header = record.header
        self._publisher.publish(make_message(header, [record], uuid4()))
        with self._lock:
            self.added += header.rows
            self._strict += header.rows


def _encode(predictions: Sequence[LoggedPrediction]) -> list[tuple[int, bytes]]:
    """Halves them until a record has at most `RECORD_BYTES`, or one prediction: how many each has, and JSON."""
    data = msgspec.json.encode(predictions)[1:-1]
    if len(data) <= RECORD_BYTES or len(predictions) == 1:
        return [(len(predictions), data)]
    half = len(predictions) // 2
    return [*_encode(predictions[:half]), *_encode(predictions[half:])]
