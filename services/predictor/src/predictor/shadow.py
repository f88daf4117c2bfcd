"""Challengers that score in the shadow of the champion's answers, and never answer themselves.

An answer is made and logged as if there were no shadow; then what was asked waits here for one thread of the worker,
which has the challenger score it and logs that, marked. So nothing that becomes of a shadow reaches an answer: what
fails is counted, and where too much waits, further requests are dropped and counted. What waits lies in memory: a
worker that is told to end scores it first, one that is killed loses it.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from predictor.decoding import Body
from predictor.prediction_log import LoggedPrediction, PredictionLog
from predictor.records import find_entities, make_records, require_finite, tell_failure
from predictor.served import ServedRelease

logger = logging.getLogger(__name__)

MAX_WAITING_ROWS = 2000
"""Two requests of the largest size, or the ordinary ones of about a second."""
MAX_WAITING_BYTES = 16 << 20
ROWS_AT_ONCE = 20
"""Between them requests that wait for the interpreter are let in."""
REST = 3
"""How many times as long as it scored the thread rests: where there are too many requests, shadows are dropped, and at
most a quarter of its time is taken from answers."""
CLOSING_SECONDS = 1.0
COMPLAIN_SECONDS = 60.0


class Asked(msgspec.Struct, frozen=True):
    """A request that was answered, and waits to be scored by the challenger."""

    challenger: ServedRelease
    read: Callable[[ServedRelease], Body]
    """Reads the request by a release's own schema, as `inference.Question.read` does."""
    ids: Sequence[str]
    """Of the answers."""
    size: int = 0
    """About how many bytes the request holds."""


class ShadowCounts(msgspec.Struct):
    """Rows of a pipeline's shadows in this worker."""

    scored: int = 0
    failed: int = 0
    dropped: int = 0
    """Answered while too much waited, or when the worker ended."""


class Shadows:
    """The shadows of one worker process.

    Args:
        log: takes what they score.
        rows: how many may wait.
        size: how many bytes of requests may.
    """

    def __init__(self, log: PredictionLog, rows: int = MAX_WAITING_ROWS, size: int = MAX_WAITING_BYTES) -> None:
        self._log = log
        self._rows = rows
        self._size = size
        self._waiting_size = 0
        self._asked: deque[Asked] = deque()
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shadows", daemon=True)
        self._complained: dict[str, float] = {}
        self._counts: dict[str, ShadowCounts] = {}
        self.waiting = 0
        """Rows that are not scored yet, those being scored among them."""

    def start(self) -> None:
        """Starts to score, in a thread of its own."""
        self._thread.start()

    def counts(self, pipeline: str) -> ShadowCounts:
        """What became of the pipeline's shadows since this worker began."""
        return self._counts.get(pipeline, ShadowCounts())

    def all_counts(self) -> dict[str, ShadowCounts]:
        """That of each pipeline that had a shadow."""
        return dict(self._counts)

    def offer(self, asked: Asked) -> None:
        """Takes a request that was answered, if there is room; waits for nothing."""
        if not self._take(asked):
            self._drop(asked, "too much waits")

    def close(self, seconds: float = CLOSING_SECONDS) -> None:
        """Scores what waits, for at most so many seconds, and counts the rest as dropped; takes no more."""
        with self._changed:
            self._ending.set()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(seconds)
        while (left := self._pop()) is not None:
            self._drop(left, "the worker ended")
            self._finish(left)

    def _take(self, asked: Asked) -> bool:
        with self._changed:
            rows, size = self.waiting + len(asked.ids), self._waiting_size + asked.size
            if self._ending.is_set() or rows > self._rows or size > self._size:
                return False
            self.waiting, self._waiting_size = rows, size
            self._asked.append(asked)
            self._changed.notify()
            return True

    def _run(self) -> None:
        while (asked := self._next()) is not None:
            began = time.perf_counter()
            try:
                self._score(asked)
            except Exception:
                logger.exception("shadow not logged")
            self._finish(asked)
            del asked  # a release that is replaced gives its memory back, while this thread waits for the next
            self._ending.wait(REST * (time.perf_counter() - began))

    def _next(self) -> Asked | None:
        """Waits for a request; None when this ends."""
        with self._changed:
            while not self._asked and not self._ending.is_set():
                self._changed.wait()
        return self._pop()

    def _pop(self) -> Asked | None:
        try:
            return self._asked.popleft()
        except IndexError:
            return None

    def _finish(self, asked: Asked) -> None:
        with self._changed:
            self.waiting -= len(asked.ids)
            self._waiting_size -= asked.size

    def _score(self, asked: Asked) -> None:
        release, rows = asked.challenger.release, len(asked.ids)
        try:
            records, microseconds = _predict(asked)
            self._log.add(release.pipeline, release.version, records, microseconds, shadow=True)
        except Exception as error:
            self._count(release.pipeline).failed += rows
            self._log.count_failures(release.pipeline, release.version, rows, shadow=True)
            self._complain(asked, "shadow failed; the champion had answered", tell_failure(error))
        else:
            self._count(release.pipeline).scored += rows

    def _drop(self, asked: Asked, why: str) -> None:
        with self._changed:
            self._count(asked.challenger.release.pipeline).dropped += len(asked.ids)
        self._complain(asked, "shadow dropped", why)

    def _count(self, pipeline: str) -> ShadowCounts:
        return self._counts.setdefault(pipeline, ShadowCounts())

    def _complain(self, asked: Asked, message: str, why: str) -> None:
        """Once in a while, not with every request: the champion's answers need the time."""
        release, now = asked.challenger.release, time.monotonic()
        if now - self._complained.get(message, -COMPLAIN_SECONDS) < COMPLAIN_SECONDS:
            return
        self._complained[message] = now
        counts = self.counts(release.pipeline)
        facts = {"pipeline": release.pipeline, "version": release.version, "rows": len(asked.ids), "error": why}
        told = {"failed": counts.failed, "dropped": counts.dropped, "scored": counts.scored}
        logger.error(message, extra={**facts, **told})


def _predict(asked: Asked) -> tuple[list[LoggedPrediction], int]:
    """What the challenger would have answered, and the processor's microseconds that it took.

    Its time does not count what it waited for its turn: requests come first, and that is not the challenger's fault.
    """
    served, read, began = asked.challenger, asked.read(asked.challenger), time.thread_time_ns()
    entities = find_entities(served, read)
    features: list[Sequence[Any]] = []
    scores: list[float] = []
    for start in range(0, len(read), ROWS_AT_ONCE):
        matrix, some = served.encode(read.part(start, start + ROWS_AT_ONCE))
        features += some
        scores += served.model.score(matrix).tolist()
    require_finite(served.release, scores)
    microseconds = (time.thread_time_ns() - began) // 1000
    return make_records(served, read, asked.ids, entities, features, scores, {}), microseconds
