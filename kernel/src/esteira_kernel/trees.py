"""Sums of regression trees as leaf bit sets: see trees.zig."""

import ctypes
import threading
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from esteira_kernel.arrays import Arrays, checked
from esteira_kernel.library import LIBRARY, find_function
from esteira_kernel.tables import derive

ABREAST: Final = 4
"""Rows that the native code works on side by side, each with words of its own."""
SMALL_ROWS: Final = 16
"""The sums of so many rows at most are made where the last ones were."""

_SIZES: Final = ("features", "words", "trees", "outputs", "stride")
_POINTERS: Final = (
    *("threshold_start", "coded_start", "passed_start", "search_start", "search_depth", "search"),
    *("word", "mask", "coded", "passed", "tree_start", "word_leaf", "leaf"),
)


class _Trees(ctypes.Structure):
    """`Trees` of trees.zig, field by field."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in _SIZES),
        *((name, ctypes.c_void_p) for name in _POINTERS),
    )


_prepare = LIBRARY.prepare_trees
_prepare.argtypes, _prepare.restype = [ctypes.c_void_p], None
_score, _score_short = find_function(
    "score_trees", [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p], None
)


class Sums:
    """Where native code writes the sums of so many rows at most, and words to work on.

    It is kept for the sake of the addresses: to ask an array for its own takes a microsecond.

    Attributes:
        address: of the sums.
    """

    def __init__(self, rows: int, outputs: int, words: int) -> None:
        self.array = np.empty((rows, outputs))
        self._alive = np.empty(ABREAST * words, dtype=np.uint32)
        self.address = self.array.ctypes.data
        self.addresses = (self.address, self._alive.ctypes.data)


class TreeSums:
    """Trees that are ready to add up. Safe to share by threads."""

    def __init__(self, arrays: Arrays) -> None:
        """Checks the arrays and makes what is derived from them.

        Args:
            arrays: `esteira_kernel.arrays.ARRAYS`, by name.

        Raises:
            ValueError: an array is missing, or of another type or shape, or points out of the others.
        """
        self._arrays = derive(checked(arrays))  # held for the pointers to them
        self.features = len(arrays["threshold_start"]) - 1
        self.outputs = int(arrays["outputs"])
        self._words = self._arrays["coded"].shape[1]
        sizes = (self.features, self._words, len(arrays["tree_start"]) - 1, self.outputs, int(self._arrays["stride"]))
        self._trees = _Trees(*sizes, *(self._arrays[name].ctypes.data for name in _POINTERS))
        self._address = ctypes.addressof(self._trees)
        _prepare(self._address)
        self._kept = _Kept(self.outputs, self._words)

    def score(self, matrix: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Adds up, for a matrix of shape (rows, features), to shape (rows, outputs).

        Raises:
            ValueError: the matrix has another shape.
        """
        if matrix.ndim != 2 or matrix.shape[1] != self.features:
            raise ValueError(f"the matrix has shape {matrix.shape}, the trees read {self.features} features")
        matrix = np.ascontiguousarray(matrix, dtype=np.float64)
        found = self.sum_rows(matrix.ctypes.data, len(matrix)).array[: len(matrix)]
        return found.copy() if len(matrix) <= SMALL_ROWS else found

    def sum_rows(self, address: int, rows: int) -> Sums:
        """Adds up the rows of the matrix at this address.

        Returns:
            The sums. Those of `SMALL_ROWS` at most are there until this thread adds up the next ones.
        """
        is_small = rows <= SMALL_ROWS
        sums = self._kept.sums if is_small else Sums(rows, self.outputs, self._words)
        (_score_short if is_small else _score)(self._address, address, rows, *sums.addresses)
        return sums


class _Kept(threading.local):
    """Of each thread, for few rows."""

    def __init__(self, outputs: int, words: int) -> None:
        self.sums = Sums(SMALL_ROWS, outputs, words)
