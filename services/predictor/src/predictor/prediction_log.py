"""Every answered prediction on its way to Pub/Sub, off the path of the request.

An answer is written to the spool before it is given; one thread publishes what lies there in batches. So a worker that
is killed loses nothing that it answered: another one, or the next, finds its folder and goes on. A batch keeps its
event id until Pub/Sub has taken it, so that one sent twice is stored once. While Pub/Sub is away predictions go on;
when the spool is larger than its limit, the oldest make room, are counted, and an ERROR says so. A release
whose pipeline wants `delivery: strict` is answered only once Pub/Sub has its predictions.
"""

import logging
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec

from esteira.events import Message, PredictionsServed, envelop
from esteira.exceptions import PermanentError, TransientError
from esteira.publisher import Publisher
from predictor.sampling import Sampler
from predictor.spool import Batch, Header, Record, SpoolReader, SpoolWriter, adopt

logger = logging.getLogger(__name__)

BATCH_ROWS = 500
BATCH_BYTES = 1 << 20
SPOOL_BYTES = 256 << 20
ADOPT_SECONDS = 10.0
COMPLAIN_SECONDS = 60.0
SOURCE = "predictor"


class LoggedPrediction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A prediction as `esteira.events.Prediction` reads it; its id is text already."""

    id: str
    entity: str | None
    event_time: datetime
    served_at: datetime
    score: float
    features: Sequence[float | str | None]
    row: dict[str, Any] | None = None


class PredictionLog:
    """The log of one worker process.

    Args:
        publisher: to Pub/Sub.
        flush_seconds: how long a prediction may wait.
        root: holds the spools of all workers that publish to the same project.
        sampler: chooses the predictions whose raw row is logged too.
        spool_bytes: how much may wait for Pub/Sub.
    """

    def __init__(
        self,
        publisher: Publisher,
        flush_seconds: float,
        root: Path,
        sampler: Sampler | None = None,
        spool_bytes: int = SPOOL_BYTES,
    ) -> None:
        self.sampler = sampler or Sampler(0)
        self._publisher = publisher
        self._flush_seconds = flush_seconds
        self._root = root
        self._spool_bytes = spool_bytes
        self._writer = SpoolWriter(root)
        self._reader: SpoolReader | None = None
        self._sending: list[Message] = []
        self._sending_rows = 0
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._complained = -COMPLAIN_SECONDS
        self._adopted = -ADOPT_SECONDS
        self.added = 0
        self.published = 0
        self.lost = 0

    def start(self) -> None:
        """Starts to publish, in a thread of its own."""
        threading.Thread(target=self._run, name="prediction-log", daemon=True).start()

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
        for start in range(0, len(predictions), BATCH_ROWS):
            some = predictions[start : start + BATCH_ROWS]
            header = Header(pipeline, model_version, len(some), 0 if start else microseconds, shadow=shadow)
            if strict:
                self._publish_now(Record(header, _encode(some)))
            else:
                self._append(header, _encode(some))

    def count_failures(self, pipeline: str, model_version: str, rows: int, *, shadow: bool = False) -> None:
        """Counts rows that a challenger could not answer; told with the next predictions."""
        self._append(Header(pipeline, model_version, failures=rows, shadow=shadow), b"")

    @property
    def pending(self) -> int:
        """How many predictions of this worker are not published yet."""
        return self.added - self.published - self.lost

    def flush(self, at_least: int = 0) -> None:
        """Publishes what waits, for as long as so many predictions do.

        Raises:
            Unavailable: Pub/Sub does not answer; nothing is lost by it.
        """
        with self._flushing:
            if self._reader is None and self._writer.folder is not None:
                self._reader = SpoolReader(self._writer.folder)
            if self._reader is not None:
                self._drain(self._reader, at_least)

    def close(self) -> None:
        """Flushes for the last time, when the process ends; what cannot be published stays for the next."""
        self._closed.set()
        self._wake.set()
        try:
            self._end()
        except TransientError as error:
            facts = {"pending": self.pending, "spool": str(self._root), "error": str(error)}
            logger.error("predictions lost at the end, unless the spool outlives the container", extra=facts)  # noqa: TRY400

    def _end(self) -> None:
        """Publishes what is left, and takes the folder away."""
        with self._flushing:
            ended, reader = self._writer.end(), self._reader
            self._reader = None
            if ended is None:
                return
            done = False
            try:
                self._drain(reader or SpoolReader(ended.folder))
                done = True
            finally:
                ended.close(published=done)

    def _append(self, header: Header, predictions: bytes) -> None:
        try:
            self._writer.append(header, predictions)
        except OSError as error:
            self._count_lost(header.rows, str(error))
            return
        with self._lock:
            self.added += header.rows
            crowded = self.added - self.published - self.lost >= BATCH_ROWS
        if crowded and not self._wake.is_set():
            self._wake.set()

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
        self._publisher.publish(_message(header, [record], uuid4()))
        with self._lock:
            self.added += header.rows
            self.published += header.rows

    def _run(self) -> None:
        crowded = False
        while not self._closed.is_set():
            try:
                self.flush(BATCH_ROWS if crowded else 0)
                self._adopt()
            except TransientError as error:
                logger.warning("prediction log waits", extra={"pending": self.pending, "error": str(error)})
                self._trim()
            except Exception:
                logger.exception("prediction log failed")
            crowded = self._wake.wait(min(self._flush_seconds, ADOPT_SECONDS))
            self._wake.clear()

    def _drain(self, reader: SpoolReader, at_least: int = 0) -> None:
        while self._sending or (self.pending >= at_least and self._take(reader)):
            self._send()
            self.published += self._sending_rows
            self._sending_rows = 0

    def _take(self, reader: SpoolReader) -> bool:
        batch = reader.take(BATCH_ROWS, BATCH_BYTES)
        if batch is None:
            return False
        self._sending, self._sending_rows = _messages(batch), batch.rows
        return True

    def _send(self) -> None:
        while self._sending:
            try:
                self._publisher.publish(self._sending[0])
            except PermanentError as error:  # it must not stand in the way of the others
                logger.error("predictions lost: not publishable", extra={"error": str(error)})  # noqa: TRY400
                self.lost += self._sending_rows
                self._sending_rows = 0
            self._sending.pop(0)

    def _adopt(self) -> None:
        """Publishes what workers left behind that were killed."""
        if time.monotonic() - self._adopted < ADOPT_SECONDS:
            return
        self._adopted = time.monotonic()
        for folder in adopt(self._root):
            rows, reader = 0, SpoolReader(folder)
            while (batch := reader.take(BATCH_ROWS, BATCH_BYTES)) is not None:
                for message in _messages(batch):
                    self._publisher.publish(message)
                rows += batch.rows
            if rows:
                logger.warning("predictions of a worker that was killed are published", extra={"rows": rows})

    def _trim(self) -> None:
        if self._reader is None or not (lost := self._reader.trim(self._spool_bytes)):
            return
        self.lost += lost
        logger.error("predictions lost: the spool is full", extra={"lost": lost, "lost_in_all": self.lost})


def _encode(predictions: Sequence[LoggedPrediction]) -> bytes:
    return msgspec.json.encode(predictions)[1:-1]


def _messages(batch: Batch) -> list[Message]:
    """One for each release, answers and shadows apart; while one is tried out the records of two alternate."""
    releases: dict[tuple[str, str, bool], list[Record]] = {}
    for head, record in ((record.header, record) for record in batch.records if record.header.pipeline):
        releases.setdefault((head.pipeline, head.model_version, head.shadow), []).append(record)
    return [
        _message(records[0].header, records, batch.event_id(pipeline, version, shadow=shadow))
        for (pipeline, version, shadow), records in releases.items()
    ]


def _message(head: Header, records: list[Record], event_id: UUID) -> Message:
    """The event without decoding what is JSON already.

    Args:
        head: of any of the records: what they have in common.
        records: of one release.
        event_id: the event's identity.
    """
    event = PredictionsServed(
        pipeline=head.pipeline,
        model_version=head.model_version,
        shadow=head.shadow,
        predictions=[],
        failures=sum(record.header.failures for record in records),
        microseconds=sum(record.header.microseconds for record in records),
    )
    fields = {name: value for name, value in msgspec.to_builtins(event).items() if name != "predictions"}
    predictions = b",".join(record.predictions for record in records if record.predictions)
    data = b'%b,"predictions":[%b]}' % (msgspec.json.encode(fields)[:-1], predictions)
    return envelop(PredictionsServed.topic, data, SOURCE, event_id)
