"""How much a process takes on at once."""

import threading

MAX_REQUEST_BYTES = 4 << 20
"""Of a request with rows, features or outcomes."""
MAX_PENDING_BYTES = 64 << 20
"""Of all of them that a worker answers at once."""


class Budget:
    """Bounds the bytes of the bodies that are being answered, and with them memory; threads may share it.

    Args:
        limit: at most so many, unless it is a single body.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._taken = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Whether there is room; then it is taken until `give` is called with the same size."""
        with self._lock:
            if self._taken and self._taken + size > self.limit:
                return False
            self._taken += size
            return True

    def give(self, size: int) -> None:
        """Gives back what was taken."""
        with self._lock:
            self._taken -= size
