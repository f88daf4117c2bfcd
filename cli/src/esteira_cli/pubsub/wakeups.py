"""Wakes whoever waits for the messages of a subscription."""

import threading
from collections import defaultdict
from collections.abc import Iterable


class Wakeups:
    """One counter per subscription: read it, look for work, then sleep until it moves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._conditions: defaultdict[str, threading.Condition] = defaultdict(threading.Condition)
        self._counts: defaultdict[str, int] = defaultdict(int)

    def count(self, subscription: str) -> int:
        """Returns the counter; read it before looking for work, so that no wake-up is missed."""
        with self._condition(subscription):
            return self._counts[subscription]

    def notify(self, subscriptions: Iterable[str]) -> None:
        """Wakes all who wait on any of `subscriptions`."""
        for name in subscriptions:
            condition = self._condition(name)
            with condition:
                self._counts[name] += 1
                condition.notify_all()

    def wait(self, subscription: str, seen: int, timeout_s: float) -> None:
        """Sleeps until the counter is no longer `seen`, at most `timeout_s`."""
        condition = self._condition(subscription)
        with condition:
            condition.wait_for(lambda: self._counts[subscription] != seen, timeout=max(timeout_s, 0.0))

    def _condition(self, subscription: str) -> threading.Condition:
        with self._lock:
            return self._conditions[subscription]
