"""Sums of trees against walking down each tree, and arrays that do not fit."""

from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from esteira_kernel.arrays import ARRAYS, WORD_BITS, Arrays
from esteira_kernel.trees import SMALL_ROWS, TreeSums

ALL = 2**WORD_BITS - 1


def starts(*values: int) -> Any:
    return np.array(values, dtype=np.uint32)


def example() -> dict[str, Any]:
    """Two trees over a number and a category of two codes.

    The first: number <= 1.5 or missing → 10, else 20. The second: code 0 → 100, code 1 → 200, anything else → 300.
    """
    return {
        "threshold_start": starts(0, 1, 1),
        "coded_start": starts(0, 1, 5),
        "threshold": np.array([1.5]),
        "word": starts(0),
        "mask": starts(0b10),
        "coded": np.array([[ALL, ALL], [ALL, 0b001], [ALL, 0b010], [ALL, 0b100], [ALL, 0b100]], dtype=np.uint32),
        "tree_start": starts(0, 1, 2),
        "word_leaf": starts(0, 2),
        "leaf": np.array([10.0, 20.0, 100.0, 200.0, 300.0]),
        "outputs": np.array(1, dtype=np.uint32),
    }


def test_leaves_of_all_trees_are_added_up() -> None:
    rows = np.array([[1.5, 0], [1.6, 1], [np.nan, np.nan], [np.inf, 7], [-np.inf, 0.5], [0, -1], [0, -0.0]])
    sums = TreeSums(example()).score(rows)
    assert sums[:, 0].tolist() == [110.0, 220.0, 310.0, 320.0, 310.0, 310.0, 110.0]


def test_a_missing_number_may_answer_false() -> None:
    arrays = example()
    arrays["coded"][0, 0] = 0b10
    assert TreeSums(arrays).score(np.array([[np.nan, 0.0], [1.0, 0.0]]))[:, 0].tolist() == [120.0, 110.0]


def test_each_output_has_trees_of_its_own() -> None:
    sums = TreeSums(example() | {"outputs": np.array(2, dtype=np.uint32)}).score(np.array([[2.0, 1.0]]))
    assert sums.tolist() == [[20.0, 200.0]]


@pytest.mark.parametrize("rows", range(10))
def test_any_number_of_rows_is_scored(rows: int) -> None:
    matrix = np.column_stack([np.arange(rows), np.arange(rows) % 3]).astype(float)
    sums = TreeSums(example()).score(matrix)
    assert sums.shape == (rows, 1)
    assert sums[:, 0].tolist() == [
        (10.0 if row <= 1.5 else 20.0) + (100.0, 200.0, 300.0)[row % 3] for row in range(rows)
    ]


def test_columns_and_other_types_are_laid_out_first() -> None:
    matrix = np.array([[1, 2, 3], [0, 1, 0]])
    assert TreeSums(example()).score(matrix.T)[:, 0].tolist() == [110.0, 220.0, 120.0]


def test_later_changes_of_the_arrays_change_nothing() -> None:
    arrays = example()
    sums = TreeSums(arrays)
    for array in arrays.values():
        array[...] = 0
    assert sums.score(np.array([[1.0, 0.0]])).tolist() == [[110.0]]


@pytest.mark.parametrize("shape", [(2,), (1, 3), (1, 1), (1, 2, 1), (3, 0)])
def test_a_matrix_of_another_width_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the trees read 2 features"):
        TreeSums(example()).score(np.zeros(shape))


@pytest.mark.parametrize(
    "changed, name",
    [
        ({"threshold_start": starts(0, 2, 2)}, "threshold_start"),
        ({"threshold_start": starts(1, 1, 1)}, "threshold_start"),
        ({"threshold_start": starts(0, 1, 0, 1)}, "threshold_start"),
        ({"threshold_start": starts()}, "threshold_start"),
        ({"coded_start": starts(0, 5)}, "coded_start"),
        ({"coded_start": starts(0, 1, 6)}, "coded_start"),
        ({"threshold": np.array([np.nan])}, "threshold"),
        ({"word": starts(2)}, "word"),
        ({"word": starts()}, "word"),
        ({"mask": starts(1, 1)}, "mask"),
        ({"tree_start": starts(0, 0, 2)}, "tree_start"),
        ({"tree_start": starts(0, 1, 3)}, "tree_start"),
        ({"tree_start": starts(0)}, "tree_start"),
        ({"word_leaf": starts(0, 5)}, "word_leaf"),
        ({"word_leaf": starts(0)}, "word_leaf"),
        ({"leaf": np.array([])}, "word_leaf"),
        ({"outputs": np.array(0, dtype=np.uint32)}, "outputs"),
        ({"outputs": np.array(3, dtype=np.uint32)}, "outputs"),
    ],
)
def test_indices_that_point_outside_are_refused_by_the_name_of_their_array(changed: Arrays, name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}`.* do not fit the other arrays"):
        TreeSums(example() | changed)


def test_thresholds_out_of_order_are_refused_and_those_of_the_next_feature_are_not() -> None:
    two = {"threshold": np.array([2.0, 1.0]), "word": starts(0, 0), "mask": starts(2, 2)}
    TreeSums(example() | two | {"threshold_start": starts(0, 1, 2)})
    with pytest.raises(ValueError, match="`threshold`"):
        TreeSums(example() | two | {"threshold_start": starts(0, 2, 2)})


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_are_missing_or_of_another_type_or_shape_are_refused(name: str) -> None:
    kind, dimensions = ARRAYS[name]
    without = {other: array for other, array in example().items() if other != name}
    other_type = np.int64 if kind == np.uint32 else np.float32
    with pytest.raises(ValueError, match=f"`{name}` is missing"):
        TreeSums(without)
    with pytest.raises(ValueError, match=f"`{name}` is .* of {dimensions} dimensions, not"):
        TreeSums(without | {name: example()[name].astype(other_type)})
    with pytest.raises(ValueError, match=f"`{name}` is .* of {dimensions + 1} dimensions, not"):
        TreeSums(without | {name: example()[name][None]})


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """Arrays that fit, of which up to three are changed in a value or in their length."""
    several = [[1.0, 2.0, 3.0], [float(at) for at in range(40)]]
    found = draw(st.sampled_from([example(), _chains(several, [[1.0] * 4, [2.0] * 41])]))
    for name in draw(st.lists(st.sampled_from(list(ARRAYS)), min_size=1, max_size=3)):
        array = found[name].copy()
        number = st.integers(0, 6) | st.integers(0, 2**32 - 1)
        value = draw(st.floats() if array.dtype == np.float64 else number)
        if array.ndim and draw(st.booleans()):
            length = draw(st.integers(0, 2 * len(array)))
            array = np.resize(array, (length, *array.shape[1:])) if array.size else np.zeros(length, array.dtype)
        elif array.size:
            array.flat[draw(st.integers(0, array.size - 1))] = value
        found[name] = array
    return found


@settings(max_examples=600, deadline=None)
@given(damaged(), st.data())
def test_damaged_arrays_are_refused_or_score(arrays: dict[str, Any], data: st.DataObject) -> None:
    """Nothing is read or written outside of them: that would end the process."""
    try:
        sums = TreeSums(arrays)
    except ValueError:
        event("refused")
        return
    event("scored")
    shape = (data.draw(st.integers(0, 9)), len(arrays["threshold_start"]) - 1)
    matrix = data.draw(hnp.arrays(np.float64, shape, elements=st.floats() | st.integers(-2, 6).map(float)))
    assert sums.score(matrix).shape == (len(matrix), int(arrays["outputs"]))


def walk(thresholds: list[float], leaves: list[float], value: float) -> float:
    """A tree over one number whose leaves lie between its thresholds in order."""
    return leaves[sum(threshold < value for threshold in thresholds)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.lists(st.integers(0, 70), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
def test_sums_are_those_of_walking_down_each_tree(outputs: int, sizes: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    trees = [sorted(generator.normal(size=size).round(2).tolist()) for size in sizes * outputs]
    leaves = [generator.normal(size=len(tree) + 1).tolist() for tree in trees]
    values = [*generator.normal(size=20).tolist(), *(tree[0] for tree in trees if tree), np.inf, -np.inf]
    arrays = _chains(trees, leaves) | {"outputs": np.array(outputs, dtype=np.uint32)}
    sums = TreeSums(arrays).score(np.array(values)[:, None])
    for value, found in zip(values, sums.tolist(), strict=True):
        expected = [0.0] * outputs
        for at, (tree, own) in enumerate(zip(trees, leaves, strict=True)):
            expected[at % outputs] += walk(tree, own, value)
        assert found == expected


def _chains(trees: list[list[float]], leaves: list[list[float]]) -> dict[str, Any]:
    """Each threshold's "false" takes the leaf away that lies just below it."""
    words = np.cumsum([0, *(-(-len(own) // WORD_BITS) for own in leaves)])
    firsts = np.cumsum([0, *map(len, leaves)])
    entries = sorted(
        (threshold, int(words[at]) + leaf // WORD_BITS, ALL ^ (1 << leaf % WORD_BITS))
        for at, tree in enumerate(trees)
        for leaf, threshold in enumerate(tree)
    )
    return {
        "threshold_start": starts(0, len(entries)),
        "coded_start": starts(0, 0),
        "threshold": np.array([threshold for threshold, _, _ in entries], dtype=np.float64),
        "word": starts(*(word for _, word, _ in entries)),
        "mask": starts(*(mask for _, _, mask in entries)),
        "coded": np.empty((0, int(words[-1])), dtype=np.uint32),
        "tree_start": words.astype(np.uint32),
        "word_leaf": starts(
            *(
                first + leaf
                for first, own in zip(firsts, leaves, strict=False)
                for leaf in range(0, len(own), WORD_BITS)
            )
        ),
        "leaf": np.array([value for own in leaves for value in own]),
        "outputs": np.array(1, dtype=np.uint32),
    }


def test_sums_stay_as_they_are_when_the_thread_scores_on() -> None:
    sums = TreeSums(example())
    first = sums.score(np.array([[1.0, 0.0]]))
    sums.score(np.array([[2.0, 1.0]]))
    assert first.tolist() == [[110.0]]


@pytest.mark.parametrize("rows", [SMALL_ROWS - 1, SMALL_ROWS, SMALL_ROWS + 1])
def test_few_rows_and_many_are_scored_alike(rows: int) -> None:
    matrix = np.column_stack([np.arange(rows), np.arange(rows) % 3]).astype(float)
    sums = TreeSums(example())
    assert sums.score(matrix).tolist() == [sums.score(row[None, :])[0].tolist() for row in matrix]
