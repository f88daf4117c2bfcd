"""Every answered prediction on its way to Pub/Sub, off the path of the request.

Answers are put into a bounded buffer; one thread publishes it in batches. A batch keeps its event id until Pub/Sub
has taken it, so that a batch sent twice is stored once. What is still here when a worker ends in order is flushed;
what a killed worker had not flushed is lost. When Pub/Sub stays away until the buffer is full, the oldest predictions
make room, are counted, and an ERROR says so: predictions go on.
"""

import logging
import threading
from collections import deque
from itertools import groupby, islice

from esteira.events import Message, Prediction, PredictionsServed, encode
from esteira.exceptions import PermanentError, TransientError
from esteira.publisher import MAX_BYTES, Publisher

logger = logging.getLogger(__name__)

BATCH = 500
CAPACITY = 200_000
SOURCE = "predictor"
Entry = tuple[str, str, Prediction]


class PredictionLog:
    """The log of one worker process."""

    def __init__(self, publisher: Publisher, flush_seconds: float, capacity: int = CAPACITY) -> None:
        self._publisher = publisher
        self._flush_seconds = flush_seconds
        self._waiting: deque[Entry] = deque(maxlen=capacity)
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
                return False
            entries = list(islice(next(groupby(self._waiting, key=lambda entry: entry[:2]))[1], BATCH))
            for _ in entries:
                self._waiting.popleft()
            self._sending_count = len(entries)
        self._sending = _message(entries)
        while len(self._sending.data) > MAX_BYTES and len(entries) > 1:
            entries = self._put_half_back(entries)
            self._sending = _message(entries)
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


def _message(entries: list[Entry]) -> Message:
    pipeline, version, _ = entries[0]
    predictions = [prediction for _, _, prediction in entries]
    return encode(PredictionsServed(pipeline=pipeline, model_version=version, predictions=predictions), SOURCE)
