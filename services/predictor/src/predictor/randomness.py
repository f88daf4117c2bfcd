"""Random bytes for identities, drawn ahead.

To ask the kernel for a few hands the interpreter on to another thread, which costs a request more than its answer.
"""

import os
import threading

_AHEAD = 4096


class _Drawn(threading.local):
    """What a thread has drawn and not used. Threads begin after the fork of a worker, so no two workers share any."""

    data = b""
    at = 0


_drawn = _Drawn()


def draw(size: int) -> bytes:
    """So many bytes, at most 4096, as `os.urandom` gives them."""
    begin = _drawn.at
    if begin + size > len(_drawn.data):
        _drawn.data, begin = os.urandom(_AHEAD), 0
    _drawn.at = begin + size
    return _drawn.data[begin : begin + size]
