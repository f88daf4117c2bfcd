"""Where the time of a job goes."""

import time


class Stopwatch:
    """Sums seconds by the name of what was done."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._begun = time.perf_counter()

    def lap(self, name: str) -> None:
        """Books the time since the last lap under `name`."""
        now = time.perf_counter()
        self.laps[name] = round(self.laps.get(name, 0.0) + now - self._begun, 3)
        self._begun = now
