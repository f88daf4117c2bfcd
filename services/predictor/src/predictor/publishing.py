"""Publishes what workers spool, in batches, off the path of every request.

A batch keeps its event ids until Pub/Sub has taken it, also when the keeper is killed meanwhile, so that one sent twice
is stored once. While Pub/Sub is away all waits in the spools; where one is larger than its limit the oldest make room,
are counted, and an ERROR says so.
"""

import logging
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from uuid import UUID

import msgspec

from esteira.events import Message, PredictionsServed, envelop
from esteira.exceptions import PermanentError
from esteira.publisher import Publisher
from predictor.spool import SPOOL_BYTES, Header, Lock, Record, find_spools, lock_root, lock_spool, remove_spool
from predictor.spool_reader import Batch, SpoolReader
from predictor.state import LogState

logger = logging.getLogger(__name__)

BATCH_ROWS = 500
BATCH_BYTES = 1 << 20
ROUNDS = 64
AT_ONCE = 8
"""Spools whose batches are under way together: each waits for an answer of Pub/Sub."""
SOURCE = "predictor"


class SpoolPublisher:
    """Publishes the spools below a root, of workers that live and of those that have ended. One thread at a time.

    Args:
        publisher: to Pub/Sub.
        root: holds the spools of all workers that publish to the same project.
        spool_bytes: how much of a worker may wait for Pub/Sub.
    """

    def __init__(self, publisher: Publisher, root: Path, spool_bytes: int = SPOOL_BYTES) -> None:
        self._publisher = publisher
        self._root = root
        self._spool_bytes = spool_bytes
        self._lock: Lock | None = None
        self._spools: dict[Path, _Spool] = {}
        self._threads = ThreadPoolExecutor(AT_ONCE, "publishing")
        self.published = 0
        self.lost = 0

    def publish(self) -> bool:
        """Publishes what lies there, the oldest of each worker first, and takes away what is of no more use.

        Returns:
            Whether nothing is left. False too where another keeper publishes, or where workers write more than
            Pub/Sub takes.

        Raises:
            Unavailable: Pub/Sub does not answer; nothing is lost by it, unless a spool is too large.
        """
        if self._lock is None:
            self._lock = lock_root(self._root)
        if self._lock is None:
            return False
        self._look()
        ended = {folder: lock for folder in self._spools if (lock := lock_spool(folder))}  # before they are drained
        try:
            done = self._drain()
            for folder in ended if done else []:
                remove_spool(folder)
        finally:
            self._trim()
            for lock in ended.values():
                lock.free()
        return done

    def close(self) -> None:
        """Leaves them to another keeper."""
        if self._lock is not None:
            self._lock.free()
            self._lock = None
        self._threads.shutdown()

    @property
    def is_mine(self) -> bool:
        """Whether no other keeper publishes them."""
        return self._lock is not None

    def has_living(self) -> bool:
        """Whether a worker may still add to its spool."""
        return not all(map(_has_ended, find_spools(self._root)))

    def has_ended(self) -> bool:
        """Whether there is a spool whose worker has ended."""
        return any(map(_has_ended, find_spools(self._root)))

    def state(self) -> LogState:
        """What was done so far, and what waits."""
        self._look()
        settled = {folder.name: spool.reader.settled for folder, spool in self._spools.items()}
        return LogState(self.published, self.lost, self.waiting(), settled)

    def waiting(self) -> int:
        """Bytes in all spools that are not published."""
        self._look()
        return sum(spool.reader.waiting() for spool in self._spools.values())

    def count_waiting(self) -> int:
        """Predictions in all spools that are not published; it reads them all."""
        self._look()
        return sum(spool.reader.count() for spool in self._spools.values())

    def _look(self) -> None:
        known = self._spools
        self._spools = {folder: known.get(folder) or _Spool(folder) for folder in find_spools(self._root)}

    def _drain(self) -> bool:
        """In rounds, a batch of each worker in each, so that a busy one does not hold up the others."""
        for _ in range(ROUNDS):
            taken = [spool for spool in self._spools.values() if spool.take()]
            if not taken:
                return True
            sent = {spool: self._threads.submit(spool.send, self._publisher) for spool in taken}
            wait(sent.values())
            for spool in (spool for spool, future in sent.items() if future.exception() is None):
                self.published += spool.rows - spool.lost
                self.lost += spool.lost
                spool.settle()
            for future in sent.values():
                future.result()
        return False

    def _trim(self) -> None:
        for spool in self._spools.values():
            if lost := spool.reader.trim(self._spool_bytes):
                self.lost += lost
                logger.error("predictions lost: the spool is full", extra={"lost": lost, "lost_in_all": self.lost})


class _Spool:
    """A spool, and the batch of it that is under way."""

    def __init__(self, folder: Path) -> None:
        self.reader = SpoolReader(folder)
        self._batch: Batch | None = None
        self._sending: list[Message] = []
        self.lost = 0
        """Of the batch's predictions, those that no one will ever take."""

    @property
    def rows(self) -> int:
        """Of the batch."""
        return self._batch.rows if self._batch else 0

    def take(self) -> bool:
        """Whether there is a batch to be sent: the one under way, or the next."""
        if self._batch is None and (batch := self.reader.take(BATCH_ROWS, BATCH_BYTES)):
            self._batch, self._sending, self.lost = batch, make_messages(batch), 0
        return self._batch is not None

    def send(self, publisher: Publisher) -> None:
        """Sends what is not sent yet of the batch."""
        while self._sending:
            try:
                publisher.publish(self._sending[0])
            except PermanentError as error:  # it must not stand in the way of the others
                logger.error("predictions lost: not publishable", extra={"error": str(error)})  # noqa: TRY400
                self.lost = self.rows
            self._sending.pop(0)

    def settle(self) -> None:
        """All of the batch is sent."""
        self.reader.settle(self.rows)
        self._batch = None


def _has_ended(folder: Path) -> bool:
    if (lock := lock_spool(folder)) is None:
        return False
    lock.free()
    return True


def make_messages(batch: Batch) -> list[Message]:
    """One for each release, answers and shadows apart; while one is tried out the records of two alternate."""
    releases: dict[tuple[str, str, bool], list[Record]] = {}
    for head, record in ((record.header, record) for record in batch.records if record.header.pipeline):
        releases.setdefault((head.pipeline, head.model_version, head.shadow), []).append(record)
    return [
        make_message(records[0].header, records, batch.event_id(pipeline, version, shadow=shadow))
        for (pipeline, version, shadow), records in releases.items()
    ]


def make_message(head: Header, records: list[Record], event_id: UUID) -> Message:
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
