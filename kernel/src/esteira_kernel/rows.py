"""Bodies of requests read into matrices: see rows.zig."""

import ctypes
import re
import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from esteira_kernel.library import LIBRARY, find_function

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
_read_long, _read_short = find_function(
    "read_rows",
    [
        *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_bool, ctypes.c_void_p, ctypes.c_size_t),
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p),
    ],
    ctypes.c_size_t,
)


class Rows:
    """Where native code writes what it reads, for so many rows and bytes at most.

    It is kept for the sake of the addresses: to ask an array for its own takes a microsecond.

    Attributes:
        count: how many rows were read.
        most: how many there is room for.
        is_small: whether it is used again when the thread that it was read by reads its next small body.
        values_size: bytes that there is room for.
        values_address: of what stands in the body for each row, a JSON array.
        ends_address: of where each of them ends.
    """

    def __init__(self, most: int, size: int, features: int, *, is_small: bool) -> None:
        self.count = 0
        self.most = most
        self.is_small = is_small
        self.values_size = size + most * (5 * features + 2)
        self._matrix = np.empty((most, features))
        self._values = np.empty(self.values_size, dtype=np.uint8)
        self._ends = np.empty(most, dtype=np.uint32)
        self._spans = np.empty(2 * features, dtype=np.uint32)
        self.matrix_address = self._matrix.ctypes.data
        self.values_address = self._values.ctypes.data
        self.ends_address = self._ends.ctypes.data
        places = (self.values_address, self.values_size, self.ends_address, self._spans.ctypes.data)
        self.addresses = (self.matrix_address, most, *places)

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """The rows, of shape (count, features)."""
        return self._matrix[: self.count]

    def values(self) -> list[bytes]:
        """What the body says of each row."""
        ends = self._ends[: self.count].tolist()
        return [self._values[start:end].tobytes() for start, end in zip([0, *ends], ends, strict=False)]


class RowReader:
    """Reads `{"features": [{name: value}]}`, and values in their order, for one list of features. Threads may share it.

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
        self._kept = _Kept(self._features)

    def read(self, body: bytes, most: int) -> Rows | None:
        """The rows of a body.

        Args:
            body: JSON.
            most: rows that it may have.

        Returns:
            None where the body is not of the ordinary kind: the rules read it then, whether it is right or wrong.
        """
        count = most if len(body) > COUNTED_BODY else min(body.count(b"{") - 1, most)
        return self._read(body, count, most, ordered=False) if self._usable else None

    def read_values(self, values: bytes, count: int) -> Rows | None:
        """Rows of values that are made already, in the order of the features. A category that is not known is missing.

        Args:
            values: JSON, `[[value, …], …]`.
            count: how many rows there are.

        Returns:
            None where a value is not of its feature's kind, or has an escape.
        """
        return self._read(values, count, count, ordered=True)

    def _read(self, text: bytes, count: int, most: int, *, ordered: bool) -> Rows | None:
        """At most `most` rows, for `count` of which there is room."""
        if count < 1 or len(text) > MAX_BODY:
            return None
        if count <= SMALL_ROWS and len(text) <= SMALL_BODY:
            rows, read = self._kept.rows, _read_short
        else:
            rows, read = Rows(count, len(text), self._features, is_small=False), _read_long
        rows.count = read(self._address, text, len(text), ordered, *rows.addresses)
        return rows if 0 < rows.count <= most else None


class _Kept(threading.local):
    """One for each thread, for small bodies."""

    def __init__(self, features: int) -> None:
        self.rows = Rows(SMALL_ROWS, SMALL_BODY, features, is_small=True)


def _readable(text: str) -> str:
    """The text, if JSON may hold it as it is."""
    return text if not _ESCAPED.search(text) else UNREADABLE


def _starts(sizes: Sequence[int]) -> npt.NDArray[np.uint32]:
    return np.cumsum([0, *sizes]).astype(np.uint32)


def _places(entries: int) -> int:
    """A power of two that leaves half of a hash table free."""
    return 1 << (2 * entries).bit_length()
