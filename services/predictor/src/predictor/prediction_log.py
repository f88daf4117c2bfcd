"""Every answered prediction on its way to Pub/Sub, off the path of the request.

Answers are put into a bounded buffer; one thread publishes it in batches. A batch keeps its event id until Pub/Sub
has taken it, so that a batch sent twice is stored once. What is still here when a worker ends in order is flushed;
what a killed worker had not flushed is lost. When Pub/Sub stays away until the buffer is full, the oldest predictions
make room, are counted, and an ERROR says so: predictions go on.
"""

import logging
import threading
from collections import deque

import msgspec

from esteira.events import Message, Prediction, PredictionsServed, encode
from esteira.exceptions import PermanentError, TransientError
from esteira.publisher import MAX_BYTES, Publisher
from predictor.sampling import Sampler

logger = logging.getLogger(__name__)

BATCH = 500
LOOK_AHEAD = 2 * BATCH
CAPACITY = 200_000
SOURCE = "predictor"
Entry = tuple[str, str, Prediction]


class Tally(msgspec.Struct):
    """What is counted of a release beside its predictions."""

    failures: int = 0
    microseconds: int = 0


class PredictionLog:
    """The log of one worker process."""

    def __init__(
        self, publisher: Publisher, flush_seconds: float, capacity: int = CAPACITY, sampler: Sampler | None = None
    ) -> None:
        self.sampler = sampler or Sampler(0)
        self._publisher = publisher
        self._flush_seconds = flush_seconds
        self._waiting: deque[Entry] = deque(maxlen=capacity)
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._sending: Message | None = None
        self._sending_count = 0
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self.published = 0
        self.lost = 0

    def start(self) -> None:
        """Starts to publish, in a thread of its own."""
        threading.Thread(target=self._run, name="prediction-log", daemon=True).start()

    def add(self, pipeline: str, model_version: str, predictions: list[Prediction]) -> None:
        """Takes predictions over; returns at once."""
        with self._lock:
            lost = max(0, len(self._waiting) + len(predictions) - (self._waiting.maxlen or 0))
            self._waiting.extend((pipeline, model_version, prediction) for prediction in predictions)
            self.lost += lost
            crowded = len(self._waiting) >= BATCH
        if lost:
            logger.error("predictions lost: the log is full", extra={"lost": lost, "lost_in_all": self.lost})
        if crowded:
            self._wake.set()

    def count(self, pipeline: str, model_version: str, microseconds: int = 0, failures: int = 0) -> None:
        """Counts time spent on answering, and rows that could not be answered; told with the next predictions."""
        with self._lock:
            tally = self._tallies.setdefault((pipeline, model_version), Tally())
            tally.microseconds += microseconds
            tally.failures += failures

    @property
    def pending(self) -> int:
        """How many predictions are not published yet."""
        return len(self._waiting) + self._sending_count

    def flush(self) -> None:
        """Publishes all that waits.

        Raises:
            Unavailable: Pub/Sub does not answer; nothing is lost by it.
        """
        with self._flushing:
            while self._take():
                assert self._sending is not None  # noqa: S101  `_take` says so
                try:
                    self._publisher.publish(self._sending)
                    self.published += self._sending_count
                except PermanentError as error:
                    self._give_up(str(error))
                self._sending, self._sending_count = None, 0

    def _give_up(self, why: str) -> None:
        """A message that Pub/Sub will never take must not stand in the way of the others."""
        self.lost += self._sending_count
        logger.error("predictions lost: not publishable", extra={"lost": self._sending_count, "error": why})

    def close(self) -> None:
        """Flushes for the last time, when the process ends."""
        self._closed.set()
        self._wake.set()
        try:
            self.flush()
        except TransientError as error:
            logger.error("predictions lost at the end", extra={"lost": self.pending, "error": str(error)})  # noqa: TRY400

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wake.wait(self._flush_seconds)
            self._wake.clear()
            try:
                self.flush()
            except TransientError as error:
                logger.warning("prediction log waits", extra={"pending": self.pending, "error": str(error)})
            except Exception:
                logger.exception("prediction log failed")

    def _take(self) -> bool:
        """Makes a message of the oldest predictions of one release, unless one is under way; False if none is left."""
        if self._sending is not None:
            return True
        with self._lock:
            if not self._waiting:
                return self._take_failures()
            entries = self._take_oldest()
            self._sending_count = len(entries)
            tally = self._tallies.pop(entries[0][:2], Tally())
        self._sending = _message(entries, tally)
        while len(self._sending.data) > MAX_BYTES and len(entries) > 1:
            entries = self._put_half_back(entries)
            self._sending = _message(entries, tally)
        return True

    def _take_oldest(self) -> list[Entry]:
        """A batch of the release that waits longest; under a canary the entries of two releases alternate."""
        seen = [self._waiting.popleft() for _ in range(min(len(self._waiting), LOOK_AHEAD))]
        release = seen[0][:2]
        mine = [entry for entry in seen if entry[:2] == release][:BATCH]
        taken = {id(entry) for entry in mine}
        self._waiting.extendleft(entry for entry in reversed(seen) if id(entry) not in taken)
        return mine

    def _take_failures(self) -> bool:
        """Makes a message of failures alone, where a release answers nothing; other tallies go with predictions."""
        failed = next((release for release, tally in self._tallies.items() if tally.failures), None)
        if failed is None:
            return False
        tally = self._tallies.pop(failed)
        self._sending = encode(_event(*failed, [], tally), SOURCE)
        return True

    def _put_half_back(self, entries: list[Entry]) -> list[Entry]:
        """Wide rows: a full batch of them is more than one message holds."""
        half = len(entries) // 2
        with self._lock:
            room = (self._waiting.maxlen or 0) - len(self._waiting)
            kept = entries[half:][max(0, len(entries) - half - room) :]
            self.lost += len(entries) - half - len(kept)
            self._waiting.extendleft(reversed(kept))
            self._sending_count = half
        return entries[:half]


def _message(entries: list[Entry], tally: Tally) -> Message:
    pipeline, version, _ = entries[0]
    return encode(_event(pipeline, version, [prediction for _, _, prediction in entries], tally), SOURCE)


def _event(pipeline: str, version: str, predictions: list[Prediction], tally: Tally) -> PredictionsServed:
    return PredictionsServed(
        pipeline=pipeline,
        model_version=version,
        predictions=predictions,
        failures=tally.failures,
        microseconds=tally.microseconds,
    )
