"""How much a process takes on at once."""

import threading
import time

MAX_REQUEST_BYTES = 4 << 20
"""Of a request with rows, features or outcomes."""
MAX_PENDING_BYTES = 64 << 20
"""Of all of them that a worker answers at once."""


THREADS = 16
"""Of a worker."""
SPARE_THREADS = 2
"""Of a worker, that no slow client may hold: they go on answering probes and those who are quick."""
SLOW_SECONDS = 2.0
"""After which a request counts as slow: it is its client that takes so long, or its rows."""


class Budget:
    """Bounds the bytes of the bodies that are being answered, and the threads that slow ones hold. Threads share it.

    Args:
        limit: at most so many bytes, unless it is a single body.
        threads: of the worker; each answers one request at a time.
        slow_seconds: after which a request counts as slow.

    Attributes:
        finished: how many requests have given back what they took.
    """

    def __init__(self, limit: int, threads: int = THREADS, slow_seconds: float = SLOW_SECONDS) -> None:
        self.limit = limit
        self.finished = 0
        self._slow_seconds = slow_seconds
        self._most_slow = max(threads - SPARE_THREADS, threads // 2, 1)
        self._taken = 0
        self._begun: dict[int, float] = {}
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Whether there is room; then it is taken until this thread calls `give` with the same size."""
        with self._lock:
            if (self._taken and self._taken + size > self.limit) or self._is_held_up():
                return False
            self._taken += size
            self._begun[threading.get_ident()] = time.monotonic()
            return True

    def give(self, size: int) -> None:
        """Gives back what was taken."""
        with self._lock:
            self._taken -= size
            self.finished += 1
            self._begun.pop(threading.get_ident(), None)

    def _is_held_up(self) -> bool:
        if len(self._begun) < self._most_slow:
            return False
        late = time.monotonic() - self._slow_seconds
        return sum(begun < late for begun in self._begun.values()) >= self._most_slow
