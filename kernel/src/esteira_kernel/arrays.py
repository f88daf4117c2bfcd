"""The arrays that describe trees, and what they must keep to."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]

WORD_BITS: Final = 32
MAX_THRESHOLDS: Final = 1 << 24

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
- `coded` (R, W): which leaves each code of a category leaves, then codes that are none of these, then a missing value;
  a number has one row at most, for a missing value, and a category two at least. A category's thresholds are not read.
- `tree_start` (T + 1): the first word of each tree. Tree t adds to output t modulo `outputs`.
- `word_leaf` (W): the leaf of a word's first bit. A tree's leaves follow one another, in its words from the lowest bit.
- `leaf` (L): what a leaf adds.
"""


def checked(arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Copies the `ARRAYS` out of `arrays`, so that nobody else changes them, and checks every index in them.

    Raises:
        ValueError: an array is missing, or of another type or shape, or points out of the others.
    """
    found = {name: _take(arrays, name, *described) for name, described in ARRAYS.items()}
    wrong = [name for name, fits in _fits(found).items() if not fits]
    if wrong:
        raise ValueError(f"{', '.join(f'`{name}`' for name in wrong)} do not fit the other arrays")
    return found


def _take(arrays: Arrays, name: str, kind: type, dimensions: int) -> npt.NDArray[Any]:
    array = arrays.get(name)
    if array is None:
        raise ValueError(f"`{name}` is missing")
    if array.dtype != kind or array.ndim != dimensions:
        raise ValueError(f"`{name}` is {array.dtype} of {array.ndim} dimensions, not {np.dtype(kind)} of {dimensions}")
    return np.array(array, dtype=kind, order="C")


def _fits(arrays: Arrays) -> dict[str, bool]:
    """Whether every index that the native code follows lies inside, by the array that holds it."""
    thresholds, (rows, words) = len(arrays["threshold"]), arrays["coded"].shape
    features, trees = len(arrays["threshold_start"]) - 1, len(arrays["tree_start"]) - 1
    outputs = int(arrays["outputs"])
    return {
        "threshold_start": _are_starts(arrays["threshold_start"], thresholds),
        "coded_start": len(arrays["coded_start"]) == features + 1 and _are_starts(arrays["coded_start"], rows),
        "threshold": thresholds <= MAX_THRESHOLDS and _are_ordered(arrays["threshold"], arrays["threshold_start"]),
        "word": len(arrays["word"]) == thresholds and bool((arrays["word"] < words).all()),
        "mask": len(arrays["mask"]) == thresholds,
        "tree_start": _are_starts(arrays["tree_start"], words) and bool(np.diff(arrays["tree_start"]).all()),
        "word_leaf": len(arrays["word_leaf"]) == words and bool((arrays["word_leaf"] < len(arrays["leaf"])).all()),
        "outputs": outputs > 0 and trees > 0 and trees % max(outputs, 1) == 0,
    }


def _are_starts(starts: npt.NDArray[Any], end: int) -> bool:
    return len(starts) > 0 and starts[0] == 0 and starts[-1] == end and bool((starts[1:] >= starts[:-1]).all())


def _are_ordered(thresholds: npt.NDArray[Any], starts: npt.NDArray[Any]) -> bool:
    """Whether they are numbers that rise within each feature."""
    falls = np.flatnonzero(thresholds[1:] < thresholds[:-1]) + 1
    return not np.isnan(thresholds).any() and bool(np.isin(falls, starts).all())
