"""Arrays in a file of a release, in NumPy's npz form: nothing is unpickled, and damaged bytes are refused."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from esteira.exceptions import ReleaseRefused

_UNREADABLE: Final = (
    *(AttributeError, EOFError, KeyError, MemoryError, OSError, OverflowError, RuntimeError, SyntaxError, TypeError),
    *(ValueError, zipfile.BadZipFile, zlib.error),
)
"""What NumPy and zipfile raise for damaged bytes."""


def write_arrays(arrays: Mapping[str, npt.ArrayLike]) -> bytes:
    """Writes arrays by name; the same content has the same bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def read_arrays(data: bytes, what: str) -> dict[str, npt.NDArray[Any]]:
    """Reads arrays by name.

    Args:
        data: the file.
        what: it holds, for the error.

    Raises:
        ReleaseRefused: the bytes are no such file.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except _UNREADABLE as error:
        raise ReleaseRefused(f"the {what} cannot be read: {error}; release it again") from error
