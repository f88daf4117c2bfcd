"""How the predictor's processes hold memory: in one heap, whose free pages they give back at rest.

Bodies and events have some hundred kilobytes. Left to itself glibc maps pages anew for each and the kernel clears them,
which takes longer than to read and to write what they hold; and it keeps a heap for each thread, some 15 MB more for a
worker, and no quicker. What is kept here stays in the middle of the heap where requests crossed one another, and then
malloc gives nothing back by itself.
"""

import ctypes
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
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
            ctypes.CDLL(None).mallopt(number, int(environ[name]))


def give_back_at_rest(count: Callable[[], int]) -> None:
    """Starts a thread that gives back what is free whenever the process has rested.

    Args:
        count: what changes with everything that the process does.
    """
    with suppress(AttributeError, OSError):
        trim = ctypes.CDLL(None).malloc_trim
        threading.Thread(target=_watch, args=(count, lambda: trim(0)), name="memory", daemon=True).start()


def _watch(count: Callable[[], int], give_back: Callable[[], object]) -> None:
    seen = given = count()
    while True:
        time.sleep(REST_SECONDS)
        before, seen = seen, count()
        if seen == before and seen != given:
            give_back()
            given = seen
