"""How listening ends without a reset.

A socket that is closed resets the connections that wait in it to be accepted, and their clients may have sent a
request already. So the kernel is told first to begin no more of them, and those that are begun are accepted; who tries
meanwhile is not heard, and refused when its kernel tries again, a second later.
"""

import ctypes
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path

ACCEPT_SECONDS = 0.1
"""For the connections that are begun."""
_SO_ATTACH_FILTER = 26
_PASS_OVER_SYN = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x45, 0, 1, 0x02),  # without SYN, jump over the next step
    (0x06, 0, 0, 0),  # drop the segment
    (0x06, 0, 0, 0xFFFFFFFF),  # take it
)
"""A program of linux/filter.h: code, steps to jump over if true and if not, operand."""


def begin_no_more(listener: int) -> None:
    """Has the kernel begin no more connections of this socket; where it cannot, they may be reset."""
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _PASS_OVER_SYN))
    option = struct.pack("HP", len(_PASS_OVER_SYN), ctypes.addressof(program))
    with socket.socket(fileno=os.dup(listener)) as copy, suppress(OSError):
        copy.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)


def holds(process: int, listener: int) -> bool:
    """Whether a process has this socket open, too; one whose files cannot be seen is taken to."""
    wanted = f"socket:[{os.fstat(listener).st_ino}]"
    try:
        files = list(Path(f"/proc/{process}/fd").iterdir())
        return any(_target(file) == wanted for file in files)
    except OSError:
        return True


def _target(file: Path) -> str | None:
    with suppress(FileNotFoundError):  # closed meanwhile
        return str(file.readlink())
    return None
