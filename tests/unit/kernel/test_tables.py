from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from esteira_kernel.arrays import checked
from esteira_kernel.tables import LANES, MAX_PASSED, STRIDE, derive, search_tree
from esteira_kernel.trees import TreeSums


@given(st.lists(st.floats(allow_nan=False), max_size=40), st.floats())
def test_the_way_down_the_search_tree_counts_the_numbers_below(numbers: list[float], value: float) -> None:
    ordered = np.sort(np.array(numbers, dtype=np.float64))
    tree, at = search_tree(ordered), 1
    for _ in range(len(ordered).bit_length()):
        at = 2 * at + int(tree[at] < value)
    assert at - len(tree) == int((ordered < value).sum())


def _stumps(count: int) -> dict[str, Any]:
    """As many trees of two leaves, at the thresholds 0, 1, 2, …: those below a value give 1, the others 0."""
    numbers = np.arange(count, dtype=np.uint32)
    return {
        "threshold_start": np.array([0, count], dtype=np.uint32),
        "coded_start": np.array([0, 0], dtype=np.uint32),
        "threshold": numbers.astype(np.float64),
        "word": numbers,
        "mask": np.full(count, 0b10, dtype=np.uint32),
        "coded": np.empty((0, count), dtype=np.uint32),
        "tree_start": np.arange(count + 1, dtype=np.uint32),
        "word_leaf": 2 * numbers,
        "leaf": np.tile([0.0, 1.0], count),
        "outputs": np.array(1, dtype=np.uint32),
    }


def test_tables_stay_within_their_limit_and_sums_stay_as_they_are() -> None:
    small, large = derive(checked(_stumps(100))), derive(checked(_stumps(8000)))
    assert small["passed"].shape == (100 // STRIDE, -(-100 // LANES) * LANES)
    assert int(large["stride"]) > STRIDE
    assert large["passed"].size <= MAX_PASSED < 8000 * 8000 // STRIDE
    values = np.array([-1.0, 0.5, 17.0, 4000.5, 7999.0, 1e9])
    assert TreeSums(_stumps(8000)).score(values[:, None])[:, 0].tolist() == [0.0, 1.0, 17.0, 4001.0, 7999.0, 8000.0]
