"""Sums of regression trees as leaf bit sets: see trees.zig."""

import ctypes
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from esteira_kernel.library import LIBRARY

WORD_BITS: Final = 32
LANES: Final = 8
STRIDE: Final = 8

ARRAYS: Final[Mapping[str, tuple[type, int]]] = {
    "threshold_start": (np.uint32, 1),
    "coded_start": (np.uint32, 1),
    "threshold": (np.float64, 1),
    "word": (np.uint32, 1),
    "mask": (np.uint32, 1),
    "coded": (np.uint32, 2),
    "tree_start": (np.uint32, 1),
    "word_leaf": (np.uint32, 1),
    "leaf": (np.float64, 1),
    "outputs": (np.uint32, 0),
}
"""Name → type and dimensions. With F features, T trees, W words, N thresholds, R coded rows and L leaves:

- `threshold_start`, `coded_start` (F + 1): where the thresholds and the coded rows of each feature begin.
- `threshold` (N): in order within a feature; a value above it answers "false".
- `word`, `mask` (N): "false" takes the leaves that `mask` lacks out of `word`.
- `coded` (R, W): the leaves that are left by each code of a category, then by codes that are none of these, then by a
  missing value; of a number by a missing value alone.
- `tree_start` (T + 1): the first word of each tree. Tree t adds to output t modulo `outputs`.
- `word_leaf` (W): the leaf of a word's first bit. A tree's leaves follow one another, in its words from the lowest bit.
- `leaf` (L): what a leaf adds.
"""

_POINTERS: Final = (
    *("threshold_start", "coded_start", "passed_start", "search_start", "search_depth", "search"),
    *("word", "mask", "coded", "passed", "tree_start", "word_leaf", "leaf"),
)


class _Trees(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("features", "words", "trees", "outputs")),
        *((name, ctypes.c_void_p) for name in _POINTERS),
    ]


_score = LIBRARY.score
_score.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]
_score.restype = None


class TreeSums:
    """Trees that are ready to add up. Safe to share by threads.

    Args:
        arrays: `ARRAYS`, by name.

    Raises:
        ValueError: an array is missing, or of another type or shape, or points out of the others.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self._arrays = {name: _take(arrays, name, *described) for name, described in ARRAYS.items()}
        self.features = len(self._arrays["threshold_start"]) - 1
        self.outputs = int(self._arrays["outputs"])
        self._words = self._arrays["coded"].shape[1]
        _require_inside(self._arrays, self.features, self.outputs, self._words)
        self._arrays["leaf"] = np.append(self._arrays["leaf"], np.full(WORD_BITS, np.nan))  # of a tree with none left
        starts = self._arrays["threshold_start"]
        passed = np.concatenate([[0], np.cumsum(np.diff(starts) // STRIDE)])
        self._arrays["passed_start"] = passed.astype(np.uint32)
        padded = -(-self._words // LANES) * LANES
        sizes = np.diff(starts)
        depth = np.array([int(n).bit_length() for n in sizes], dtype=np.uint32)
        self._arrays["search_depth"] = depth
        self._arrays["search_start"] = np.concatenate([[0], np.cumsum(1 << depth)]).astype(np.uint32)
        out = []
        for f in range(self.features):
            k = int(depth[f])
            t = np.full(1 << k, np.inf)
            src = np.full(1 << k, np.inf)
            th = self._arrays["threshold"][starts[f] : starts[f + 1]]
            src[: len(th)] = th
            for d in range(k):
                p = np.arange(1 << d)
                t[(1 << d) + p] = src[(2 * p + 1) * (1 << (k - 1 - d)) - 1]
            out.append(t)
        self._arrays["search"] = np.concatenate(out)
        self._arrays["passed"] = np.empty((int(passed[-1]), padded), dtype=np.uint32)
        self._arrays["coded"] = np.pad(self._arrays["coded"], ((0, 0), (0, padded - self._words)))
        self._words = padded
        sizes = (self.features, self._words, len(self._arrays["tree_start"]) - 1, self.outputs)
        self._native = _Trees(*sizes, *(self._arrays[name].ctypes.data for name in _POINTERS))
        self._address = ctypes.addressof(self._native)
        LIBRARY.prepare(ctypes.c_void_p(self._address))

    def score(self, matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sums of shape (rows, outputs) for a matrix of shape (rows, features)."""
        if matrix.ndim != 2 or matrix.shape[1] != self.features:
            raise ValueError(f"the matrix has shape {matrix.shape}, the trees read {self.features} features")
        matrix = np.ascontiguousarray(matrix, dtype=np.float64)
        sums, alive = np.empty((len(matrix), self.outputs)), np.empty(4 * self._words, dtype=np.uint32)
        _score(self._address, matrix.ctypes.data, len(matrix), sums.ctypes.data, alive.ctypes.data)
        return sums


def _take(arrays: Mapping[str, npt.NDArray[Any]], name: str, kind: type, dimensions: int) -> npt.NDArray[Any]:
    array = arrays.get(name)
    if array is None:
        raise ValueError(f"`{name}` is missing")
    if array.dtype != kind or array.ndim != dimensions:
        raise ValueError(f"`{name}` is {array.dtype} of {array.ndim} dimensions, not {np.dtype(kind)} of {dimensions}")
    return np.array(array, order="C")  # nobody else changes it afterwards


def _require_inside(arrays: Mapping[str, npt.NDArray[Any]], features: int, outputs: int, words: int) -> None:
    """Raises unless every index that the native code follows lies inside."""
    trees = len(arrays["tree_start"]) - 1
    right = {
        "threshold_start": features >= 0 and _are_starts(arrays["threshold_start"], len(arrays["threshold"])),
        "coded_start": len(arrays["coded_start"]) == features + 1
        and _are_starts(arrays["coded_start"], len(arrays["coded"])),
        "threshold": not np.isnan(arrays["threshold"]).any(),
        "word": len(arrays["word"]) == len(arrays["threshold"]) and bool((arrays["word"] < words).all()),
        "mask": len(arrays["mask"]) == len(arrays["threshold"]),
        "tree_start": trees > 0
        and _are_starts(arrays["tree_start"], words)
        and bool(np.diff(arrays["tree_start"]).all()),
        "word_leaf": len(arrays["word_leaf"]) == words and bool((arrays["word_leaf"] < len(arrays["leaf"])).all()),
        "outputs": outputs > 0 and trees % max(outputs, 1) == 0,
    }
    wrong = [name for name, fine in right.items() if not fine]
    if wrong:
        raise ValueError(f"{', '.join(f'`{name}`' for name in wrong)} do not fit the other arrays")


def _are_starts(starts: npt.NDArray[Any], end: int) -> bool:
    return len(starts) > 0 and starts[0] == 0 and starts[-1] == end and bool((starts[1:] >= starts[:-1]).all())
