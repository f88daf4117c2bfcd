"""Bodies of requests read into matrices: see rows.zig."""

import ctypes
import re
import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from esteira_kernel.library import LIBRARY

UNREADABLE: Final = '"'
"""A category that is never read: it stands for one that JSON cannot hold without an escape."""
_ESCAPED: Final = re.compile(r'["\\\x00-\x1f\ud800-\udfff]')
SMALL_ROWS: Final = 16
SMALL_BODY: Final = 1 << 14
"""Bodies of so many rows and bytes at most are read where the last one was."""
COUNTED_BODY: Final = 1 << 16
"""Bytes; of a larger body the rows are not counted beforehand."""
MAX_BODY: Final = 2**31
"""Bytes; places in a body are kept in 32 bits."""


class _Plan(ctypes.Structure):
    _fields_ = [
        ("features", ctypes.c_size_t),
        *(
            (name, ctypes.c_void_p)
            for name in ("is_number", "entry_start", "table_start", "place_start", "places", "texts")
        ),
        ("text_bytes", ctypes.c_size_t),
    ]


LIBRARY.prepare_rows.argtypes = [ctypes.c_void_p]
LIBRARY.prepare_rows.restype = None
_read = LIBRARY.read_rows
_read.argtypes = [
    *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t),
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p),
]
_read.restype = ctypes.c_size_t


class RowReader:
    """Reads `{"features": [{name: value}]}` for one list of features. Safe to share by threads.

    Args:
        names: of the features, in the order of the matrix.
        categories: of each feature; None for a number.
    """

    def __init__(self, names: Sequence[str], categories: Sequence[Sequence[str] | None]) -> None:
        tables = [list(names), *(list(known or ()) for known in categories)]
        texts = [_readable(text).encode() for table in tables for text in table]
        self._usable = UNREADABLE not in map(_readable, names)
        places = [_places(len(table)) for table in tables]
        self._features = len(names)
        self._arrays: dict[str, npt.NDArray[Any]] = {
            "is_number": np.array([known is None for known in categories], dtype=np.uint8),
            "entry_start": _starts([len(text) for text in texts]),
            "table_start": _starts([len(table) for table in tables]),
            "place_start": _starts(places),
            "places": np.zeros(sum(places), dtype=np.uint32),
            "texts": np.frombuffer(b"".join(texts) or b"\0", dtype=np.uint8),
        }
        addresses = {name: array.ctypes.data for name, array in self._arrays.items()}
        self._plan = _Plan(features=self._features, text_bytes=sum(map(len, texts)), **addresses)
        self._address = ctypes.addressof(self._plan)
        LIBRARY.prepare_rows(self._address)
        self._spaces = _Spaces(self._features)

    def read(self, body: bytes, most: int) -> tuple[npt.NDArray[np.float64], list[bytes]] | None:
        """The matrix of a body's rows, and the values of each row as the body has them: a JSON array.

        Args:
            body: JSON.
            most: rows that it may have.

        Returns:
            None where the body is not of the ordinary kind: the rules read it then, whether it is right or wrong.
        """
        rows = most if len(body) > COUNTED_BODY else min(body.count(b"{") - 1, most)
        if rows < 1 or len(body) > MAX_BODY or not self._usable:
            return None
        small = rows <= SMALL_ROWS and len(body) <= SMALL_BODY
        space = self._spaces.space if small else _Space(rows, len(body), self._features)
        found = _read(self._address, body, len(body), space.matrix_address, rows, *space.addresses)
        if found == 0:
            return None
        matrix = space.matrix[:found]
        return matrix.copy() if small else matrix, space.rows(found)


class _Space:
    """Where the native code writes, for so many rows and bytes at most.

    It is kept for the sake of the addresses: to ask an array for its own takes a microsecond.
    """

    def __init__(self, rows: int, size: int, features: int) -> None:
        self.matrix = np.empty((rows, features))
        self._values = np.empty(size + rows * (5 * features + 2), dtype=np.uint8)
        self._ends = np.empty(rows, dtype=np.uint32)
        self._spans = np.empty(2 * features, dtype=np.uint32)
        self.matrix_address = self.matrix.ctypes.data
        places = (self._ends.ctypes.data, self._spans.ctypes.data)
        self.addresses = (self._values.ctypes.data, len(self._values), *places)

    def rows(self, count: int) -> list[bytes]:
        """The values of the first rows."""
        if count == 1:
            return [self._values[: self._ends[0]].tobytes()]
        ends = self._ends[:count].tolist()
        written = self._values[: ends[-1]].tobytes()
        return [written[start:end] for start, end in zip([0, *ends], ends, strict=False)]


class _Spaces(threading.local):
    """One for each thread, for small bodies."""

    def __init__(self, features: int) -> None:
        self.space = _Space(SMALL_ROWS, SMALL_BODY, features)


def _readable(text: str) -> str:
    """The text, if JSON may hold it as it is."""
    return text if not _ESCAPED.search(text) else UNREADABLE


def _starts(sizes: Sequence[int]) -> npt.NDArray[np.uint32]:
    return np.cumsum([0, *sizes]).astype(np.uint32)


def _places(entries: int) -> int:
    """A power of two that leaves half of a hash table free."""
    return 1 << (2 * entries).bit_length()
