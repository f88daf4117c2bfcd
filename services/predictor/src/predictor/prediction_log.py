"""Every answered prediction on its way to Pub/Sub, off the path of the request.

Answers are put into a bounded buffer; one thread publishes it in batches. A batch keeps its event id until Pub/Sub
has taken it, so that a batch sent twice is stored once. What is still here when a worker ends in order is flushed;
what a killed worker had not flushed is lost. When Pub/Sub stays away until the buffer is full, the oldest predictions
make room, are counted, and an ERROR says so: predictions go on.
"""

import logging
import threading
from collections import deque
from itertools import groupby

from esteira.events import Message, Prediction, PredictionsServed, encode
from esteira.exceptions import TransientError
from esteira.publisher import Publisher

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
                self._publisher.publish(self._sending)
                self.published += self._sending_count
                self._sending, self._sending_count = None, 0

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
            (pipeline, version), entries = next(groupby(self._waiting, key=lambda entry: entry[:2]))
            predictions = [prediction for _, (_, _, prediction) in zip(range(BATCH), entries, strict=False)]
            for _ in predictions:
                self._waiting.popleft()
            self._sending_count = len(predictions)
        event = PredictionsServed(pipeline=pipeline, model_version=version, predictions=predictions)
        self._sending = encode(event, SOURCE)
        return True
