"""Of which predictions the raw row is kept, so that changed code can be tried on what production was asked."""

import threading
from uuid import UUID

FIRST = 50
"""Predictions of each release that a worker keeps whatever the share: little traffic too gives a sample at once."""
_RANGE = 2**32


class Sampler:
    """Chooses predictions by their id; threads may share it.

    Args:
        share: of predictions, from 0 (none at all, not even the first) to 1.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._limit = int(share * _RANGE)
        self._first: dict[str, int] = {}
        self._lock = threading.Lock()

    def takes(self, model_version: str, prediction_id: UUID) -> bool:
        """Whether the raw row of this prediction is kept; decided by the id alone once the first are taken."""
        if not self._share:
            return False
        return prediction_id.int % _RANGE < self._limit or self._is_among_first(model_version)

    def _is_among_first(self, model_version: str) -> bool:
        with self._lock:
            taken = self._first.get(model_version, 0)
            self._first[model_version] = min(taken + 1, FIRST)
        return taken < FIRST
