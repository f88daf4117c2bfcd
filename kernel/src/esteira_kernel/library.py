"""The compiled library."""

import ctypes
from pathlib import Path

PATH = Path(__file__).with_name("kernel.bin")
"""Not named as an extension module is: Python would take it for one."""


def _load() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(PATH))
    except OSError as error:
        raise ImportError(
            f"{PATH} cannot be loaded: {error}; build and install esteira-kernel on this platform (`make install`)"
        ) from error


LIBRARY = _load()
