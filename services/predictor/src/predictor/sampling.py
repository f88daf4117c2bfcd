"""Of which predictions the raw row is kept, so that changed code can be tried on what production was asked."""

import random
import threading

FIRST = 50
"""Predictions of each release that a worker keeps whatever the share: little traffic too gives a sample at once."""


class Sampler:
    """Chooses predictions by chance; threads may share it.

    Args:
        share: of predictions, from 0 (none at all, not even the first) to 1.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._random = random.Random()  # noqa: S311  a sample, no secret
        self._first: dict[str, int] = {}
        self._lock = threading.Lock()

    def choose(self, model_version: str, rows: int, share: float | None = None) -> list[int]:
        """The positions of those whose raw row is kept, among so many predictions of a request.

        Args:
            model_version: of the release that answers.
            rows: how many predictions there are.
            share: the pipeline's own, if it has one.
        """
        share = self._share if share is None else share
        if not share:
            return []
        first = self._take_first(model_version, rows) if self._first.get(model_version, 0) < FIRST else 0
        draw = self._random.random
        return [position for position in range(rows) if position < first or draw() < share]

    def _take_first(self, model_version: str, rows: int) -> int:
        with self._lock:
            taken = self._first.get(model_version, 0)
            self._first[model_version] = min(FIRST, taken + rows)
            return self._first[model_version] - taken
