"""Faults on demand: deliver twice, late, or out of order."""

import math
import random
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from esteira_cli.pubsub.exceptions import InvalidArgument

REORDER_WINDOW_S = 0.5
"""Reordering holds each message for a random time up to this."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong with messages published from now on."""

    duplicate: float = 0.0
    """Share of messages that are delivered twice, 0 to 1."""
    delay_s: tuple[float, float] = (0.0, 0.0)
    """Shortest and longest hold before the first delivery, in seconds."""
    reorder: bool = False
    """Shuffle messages by holding each for a random part of half a second."""

    def copies(self, chance: random.Random) -> int:
        """Draws how many times the next message is delivered."""
        return 2 if chance.random() < self.duplicate else 1

    def hold_s(self, chance: random.Random) -> float:
        """Draws how long the next message is held back."""
        hold = chance.uniform(*self.delay_s)
        return hold + chance.uniform(0, REORDER_WINDOW_S) if self.reorder else hold

    def to_json(self) -> dict[str, object]:
        """Returns the form that `PUT /faults` reads."""
        return {**asdict(self), "delay_s": list(self.delay_s)}


class FaultSwitch:
    """Holds the faults of the moment; may be turned while messages flow."""

    def __init__(self, faults: Faults | None = None) -> None:
        self._lock = threading.Lock()
        self._faults = faults or Faults()

    @property
    def faults(self) -> Faults:
        """The faults of the moment."""
        with self._lock:
            return self._faults

    def set(self, faults: Faults) -> None:
        """Replaces all faults."""
        with self._lock:
            self._faults = faults


def parse_faults(body: object) -> Faults:
    """Reads the body of `PUT /faults`; what is left out is off.

    Raises:
        InvalidArgument: an unknown switch, or a value out of range.
    """
    if not isinstance(body, Mapping):
        raise InvalidArgument('faults: expected a JSON object such as {"duplicate": 0.1, "delay_s": 0.5}')
    unknown = sorted(set(body) - {"duplicate", "delay_s", "reorder"})
    if unknown:
        raise InvalidArgument(f"faults: unknown switch {unknown[0]!r}; there are duplicate, delay_s and reorder")
    reorder = body.get("reorder", False)
    if not isinstance(reorder, bool):
        raise InvalidArgument(f"faults.reorder: expected true or false, got {reorder!r}")
    return Faults(_share(body.get("duplicate", 0.0)), _range(body.get("delay_s", 0.0)), reorder)


def parse_delay(text: str) -> tuple[float, float]:
    """Reads `0.5` or `0.1:2`, in seconds.

    Raises:
        InvalidArgument: neither of these.
    """
    try:
        values: list[object] = [float(part) for part in text.split(":")]
    except ValueError as error:
        raise InvalidArgument(f"delay: expected seconds as 0.5 or a range as 0.1:2, got {text!r}") from error
    return _range(values if len(values) > 1 else values[0])


def _share(value: object) -> float:
    number = _number(value)
    if number is None or number > 1:
        raise InvalidArgument(f"faults.duplicate: expected a share from 0 to 1, got {value!r}")
    return number


def _range(value: object) -> tuple[float, float]:
    bounds = [_number(part) for part in (value if isinstance(value, list) else [value, value])]
    match bounds:
        case [float(low), float(high)] if low <= high <= 3600:
            return low, high
    raise InvalidArgument(f"faults.delay_s: expected seconds or [shortest, longest] within 0 to 3600, got {value!r}")


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None
