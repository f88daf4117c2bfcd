"""What is made of the arrays once, so that a row costs less."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from esteira_kernel.arrays import WORD_BITS, Arrays

LANES: Final = 8
"""Words that the native code works on at once; it goes through whole lanes."""
STRIDE: Final = 8
"""Thresholds between two rows of `passed`: half of that is taken away one by one, for each feature of a row."""
MAX_PASSED: Final = 1 << 22
"""Words of `passed`, 16 MB; where there would be more the stride grows."""


def derive(arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Makes the native code's arrays out of checked ones.

    - `coded`: padded to whole lanes.
    - `leaf`: after the last one, what a tree adds of which nothing is left. No exported tree comes to that.
    - `search_start` (F), `search_depth` (F), `search`: each feature's thresholds as a tree; see `search_tree`.
    - `stride`: how many thresholds lie between two rows of `passed`, a power of two.
    - `passed_start` (F): where the rows of each feature begin in `passed`.
    - `passed` (rows, W): the leaves that the first `stride` thresholds leave together, then twice as many, and so on;
      the native code fills it.
    """
    sizes = np.diff(arrays["threshold_start"].astype(np.int64))
    words = arrays["coded"].shape[1]
    padded = -(-words // LANES) * LANES
    searches = [search_tree(part) for part in np.split(arrays["threshold"], arrays["threshold_start"][1:-1])]
    stride = _stride(sizes, padded)
    return {
        **arrays,
        "coded": np.pad(arrays["coded"], ((0, 0), (0, padded - words))),
        "leaf": np.append(arrays["leaf"], np.full(WORD_BITS, np.nan)),
        "search_start": _starts(np.array([len(search) for search in searches], dtype=np.int64)),
        "search_depth": np.array([int(size).bit_length() for size in sizes], dtype=np.uint8),
        "search": np.concatenate(searches),
        "stride": np.array(stride, dtype=np.uintp),
        "passed_start": _starts(sizes // stride),
        "passed": np.empty((int((sizes // stride).sum()), padded), dtype=np.uint32),
    }


def search_tree(ordered: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Lays numbers out as a full binary search tree: its root at 1, the children of i at 2 i and 2 i + 1.

    Infinities fill it up behind them, so that its depth is the bit length of their count. Nothing stands at 0.
    """
    depth = len(ordered).bit_length()
    filled = np.full(1 << depth, np.inf)
    filled[: len(ordered)] = ordered
    levels = [filled[(1 << (depth - 1 - level)) - 1 :: 1 << (depth - level)] for level in range(depth)]
    return np.concatenate([filled[-1:], *levels])


def _stride(sizes: npt.NDArray[Any], words: int) -> int:
    stride = STRIDE
    while int((sizes // stride).sum()) * words > MAX_PASSED:
        stride *= 2
    return stride


def _starts(lengths: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.uintp)
