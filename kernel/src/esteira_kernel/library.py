"""The compiled library."""

import ctypes
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("kernel.bin")
"""Not named as an extension module is: Python would take it for one."""


def _load(kind: type[ctypes.CDLL]) -> ctypes.CDLL:
    try:
        return kind(str(PATH))
    except OSError as error:
        raise ImportError(
            f"{PATH} cannot be loaded: {error}; build and install esteira-kernel on this platform (`make install`)"
        ) from error


LIBRARY = _load(ctypes.CDLL)
"""Its functions let other threads run meanwhile."""
_SHORT = _load(ctypes.PyDLL)


def find_function(name: str, arguments: list[Any], result: Any) -> tuple[Any, Any]:
    """A function of the library, twice: one that lets other threads run meanwhile, and one for what takes microseconds,
    which does not: to hand the interpreter on costs more."""
    found = getattr(LIBRARY, name), getattr(_SHORT, name)
    for function in found:
        function.argtypes, function.restype = arguments, result
    return found
