"""Arrays in a file of a release, in NumPy's npz form: nothing is unpickled, and damaged bytes are refused."""

import io
import zipfile
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from esteira.exceptions import ReleaseRefused

MAX_BYTES: Final = 512 << 20
"""Of all arrays of a file, decompressed: a few KiB may say to be more than memory."""


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
        ReleaseRefused: the bytes are no such file, or hold more than `MAX_BYTES`.
    """
    try:
        _check_size(data)
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: _array(file[name]) for name in file.files}
    except Exception as error:  # NumPy reads headers as Python: they fail in any way
        raise ReleaseRefused(f"the {what} cannot be read: {error}; release it again") from error


def _array(member: Any) -> npt.NDArray[Any]:
    """NumPy gives the bytes of what is no array."""
    if not isinstance(member, np.ndarray):
        raise TypeError("a member is no array")
    return member


def _check_size(data: bytes) -> None:
    """By what the file says of its members, of which zipfile reads no more than that."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        size = sum(member.file_size for member in file.infolist())
    if size > MAX_BYTES:
        raise ValueError(f"it holds {size} bytes, of which {MAX_BYTES} are allowed")
