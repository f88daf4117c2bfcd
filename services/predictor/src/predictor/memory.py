"""How the predictor's processes hold memory: in one heap, whose free pages they give back at rest.

Bodies, and what is made of them, have some hundred kilobytes each. Left to itself glibc gives them back to the system
where several are free at once, and the kernel clears the pages of the next ones: that takes longer than to read and to
write what they hold. It also keeps a heap for each thread: some 15 MB more for a worker, and no quicker (ADR 0012).
"""

import ctypes
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

MALLOC: Final = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(8 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 20),
}
"""Variables that glibc reads when a process begins."""
REST_SECONDS: Final = 0.5
_NUMBERS: Final = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_ARENA_MAX": -8}
"""In malloc.h."""


def set_malloc(environ: Mapping[str, str]) -> None:
    """For the processes that are forked from this one, which has begun without the variables."""
    with suppress(AttributeError, OSError):  # another C library
        for name, number in _NUMBERS.items():
            if (value := environ.get(name, "")).isdigit():
                ctypes.CDLL(None).mallopt(number, int(value))


def give_back_at_rest(count: Callable[[], object]) -> None:
    """Starts a thread that gives back what is free whenever the process has rested.

    Args:
        count: something else after whatever takes much memory for a while.
    """
    with suppress(AttributeError, OSError):
        trim = ctypes.CDLL(None).malloc_trim
        watch = partial(_watch, count, lambda: trim(0), time.sleep)
        threading.Thread(target=watch, name="memory", daemon=True).start()


def _watch(count: Callable[[], object], give_back: Callable[[], object], sleep: Callable[[float], object]) -> None:
    seen = given = count()
    while True:
        sleep(REST_SECONDS)
        before, seen = seen, count()
        if seen == before and seen != given:
            give_back()
            given = seen
