"""Sums of regression trees as leaf bit sets: see trees.zig."""

import ctypes
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from esteira_kernel.arrays import Arrays, checked
from esteira_kernel.library import LIBRARY
from esteira_kernel.tables import derive

ABREAST: Final = 4
"""Rows that the native code works on side by side, each with words of its own."""

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


_prepare, _score = LIBRARY.prepare_trees, LIBRARY.score_trees
_prepare.argtypes, _prepare.restype = [ctypes.c_void_p], None
_score.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]
_score.restype = None


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

    def score(self, matrix: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Adds up, for a matrix of shape (rows, features), to shape (rows, outputs).

        Raises:
            ValueError: the matrix has another shape.
        """
        if matrix.ndim != 2 or matrix.shape[1] != self.features:
            raise ValueError(f"the matrix has shape {matrix.shape}, the trees read {self.features} features")
        matrix = np.ascontiguousarray(matrix, dtype=np.float64)
        sums, alive = np.empty((len(matrix), self.outputs)), np.empty(ABREAST * self._words, dtype=np.uint32)
        _score(self._address, matrix.ctypes.data, len(matrix), sums.ctypes.data, alive.ctypes.data)
        return sums
