"""Publishes what workers spool, in batches, off the path of every request.

A batch keeps its event ids until Pub/Sub has taken it, also when the keeper is killed meanwhile, so that one sent twice
is stored once. While Pub/Sub is away all waits in the spools; where one is larger than its limit the oldest make room,
are counted, and an ERROR says so.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
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

BATCH_ROWS = 5000
"""Of an event, about: whoever hears it stores so many in a second or two."""
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
        self._failed: set[Path] = set()
        self._threads = ThreadPoolExecutor(AT_ONCE, "publishing")
        self.published = 0
        self.lost = 0
        self.is_behind = False
        """Whether the last call of `publish` left some, for there was too much for one call."""

    def publish(self) -> bool:
        """Publishes what lies there, the oldest of each worker first, and takes away what is of no more use.

        Returns:
            Whether nothing is left. False too where another keeper publishes, or where workers write more than
            Pub/Sub takes.

        Raises:
            Unavailable: Pub/Sub does not answer; nothing is lost by it, unless a spool is too large.
        """
        if self._lock is None:
            self._spools = {}  # how far they are the other keeper wrote down
            self._lock = lock_root(self._root)
        if self._lock is None:
            return False
        self._failed, self.is_behind = set(), False
        self._look()
        ended = self._lock_ended()  # before they are drained
        try:
            done = self._drain()
            self.is_behind = not done
            for folder in set(ended) - self._failed if done else ():
                with self._apart(folder):
                    remove_spool(folder)
        finally:
            self._trim()
            for lock in ended.values():
                lock.free()
        return done and not self._failed

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
        waiting = self.waiting()
        settled = {folder.name: spool.reader.settled for folder, spool in self._spools.items()}
        return LogState(self.published, self.lost, waiting, settled)

    def waiting(self) -> int:
        """Bytes in all spools that are not published."""
        self._look()
        found = 0
        for folder, spool in self._spools.items():
            with self._apart(folder):
                found += spool.reader.waiting()
        return found

    def count_waiting(self) -> int:
        """Predictions in all spools that are not published; it reads them all, beside a thread that publishes too."""
        found = 0
        for folder in find_spools(self._root):
            with suppress(OSError):
                found += SpoolReader(folder).count()
        return found

    def _look(self) -> None:
        found: dict[Path, _Spool] = {}
        for folder in find_spools(self._root):
            with self._apart(folder):
                found[folder] = self._spools.get(folder) or _Spool(folder)
        self._spools = found

    @contextmanager
    def _apart(self, folder: Path) -> Iterator[None]:
        """A spool that fails is told once each time that all are published, and does not hold up the others."""
        try:
            yield
        except OSError as error:
            if folder not in self._failed:
                self._failed.add(folder)
                logger.error("spool failed", extra={"spool": str(folder), "error": str(error)})  # noqa: TRY400

    def _lock_ended(self) -> dict[Path, Lock]:
        found: dict[Path, Lock] = {}
        for folder in self._spools:
            with self._apart(folder):
                if lock := lock_spool(folder):
                    found[folder] = lock
        return found

    def _drain(self) -> bool:
        """In rounds, a batch of each worker in each, so that a busy one does not hold up the others."""
        for _ in range(ROUNDS):
            taken = self._take()
            if not taken:
                return True
            sent = {spool: self._threads.submit(spool.send, self._publisher) for spool in taken}
            wait(sent.values())
            for spool in (spool for spool, future in sent.items() if future.exception() is None):
                self._settle(spool)
            for future in sent.values():
                future.result()
        return False

    def _take(self) -> list["_Spool"]:
        taken: list[_Spool] = []
        for folder in self._spools.keys() - self._failed:
            with self._apart(folder):
                if self._spools[folder].take():
                    taken.append(self._spools[folder])
        return taken

    def _settle(self, spool: "_Spool") -> None:
        rows, lost = spool.rows, spool.lost
        with self._apart(spool.reader.folder):
            spool.settle()
            self.published += rows - lost
            self.lost += lost

    def _trim(self) -> None:
        for folder, spool in self._spools.items():
            with self._apart(folder):
                if lost := spool.reader.trim(self._spool_bytes):
                    self.lost += lost
                    logger.error("predictions lost: the spool is full", extra={"lost": lost, "lost_in_all": self.lost})


class _Spool:
    """A spool, and the batch of it that is under way."""

    def __init__(self, folder: Path) -> None:
        self.reader = SpoolReader(folder)
        self._batch: Batch | None = None
        self._sending: list[tuple[Message, int]] = []
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
            message, rows = self._sending[0]
            try:
                publisher.publish(message)
            except PermanentError as error:  # it must not stand in the way of the others
                logger.error("predictions lost: not publishable", extra={"error": str(error)})  # noqa: TRY400
                self.lost += rows
            self._sending.pop(0)

    def settle(self) -> None:
        """All of the batch is sent."""
        self.reader.settle(self.rows)
        self._batch = None


def _has_ended(folder: Path) -> bool:
    with suppress(OSError):  # publishing meets it too, and says it
        if lock := lock_spool(folder):
            lock.free()
            return True
    return False


def make_messages(batch: Batch) -> list[tuple[Message, int]]:
    """One for each release, answers and shadows apart; while one is tried out the records of two alternate.

    Returns:
        Each with its number of predictions.
    """
    releases: dict[tuple[str, str, bool], list[Record]] = {}
    for head, record in ((record.header, record) for record in batch.records if record.header.pipeline):
        releases.setdefault((head.pipeline, head.model_version, head.shadow), []).append(record)
    ids = [batch.event_id(pipeline, version, shadow=shadow) for pipeline, version, shadow in releases]
    return [
        (make_message(records[0].header, records, event_id), sum(record.header.rows for record in records))
        for event_id, records in zip(ids, releases.values(), strict=True)
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
