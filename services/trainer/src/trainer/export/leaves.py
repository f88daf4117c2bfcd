"""Histogram gradient boosting as the arrays of `esteira_kernel`: what the "false" of each split takes away."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final

import msgspec
import numpy as np

from esteira.schema import Feature
from esteira.scoring import Task
from esteira.trees import FORMAT, to_bytes
from esteira_kernel.arrays import WORD_BITS, Arrays
from trainer.export.graph import NotSummable
from trainer.export.model import BOOSTERS, describe, split_steps
from trainer.export.trees import LESS_OR_EQUAL, Column, Split, baseline_of, read_columns, read_split, weigh

MAX_CODED_WORDS: Final = 1 << 22
"""Of the tables of categories and missing values together: 16 MB in a predictor's memory."""
_ALL: Final = 2**WORD_BITS - 1


class Removal(msgspec.Struct, frozen=True):
    """What an inner node does: "false" takes the leaves of its true side away, `first` up to `last`, exclusive."""

    split: Split
    tree: int
    first: int
    last: int


class Forest:
    """Trees as they are gathered, the leaves of each from left to right."""

    def __init__(self) -> None:
        self.leaves: list[list[float]] = []
        self.removals: list[Removal] = []

    def add_tree(self, predictor: Any, columns: Sequence[Column], baseline: float | None) -> None:
        """Adds one fitted tree; `baseline` is added to its leaves, as the first addition."""
        nodes, leaves = predictor.nodes, list[float]()
        waiting: list[tuple[int, int | None]] = [(0, None)]  # a node; and once its true side is done, its first leaf
        while waiting:
            at, first = waiting.pop()
            node = nodes[at]
            if node["is_leaf"]:
                leaves.append(weigh(node, baseline))
            elif first is None:
                waiting += [(int(node["right"]), None), (at, len(leaves)), (int(node["left"]), None)]
            else:
                split = read_split(node, columns, predictor.raw_left_cat_bitsets)
                self.removals.append(Removal(split, len(self.leaves), first, len(leaves)))
        self.leaves.append(leaves)

    def words(self) -> list[int]:
        """The first word of each tree, and their number at the end."""
        return list(accumulate((-(-len(leaves) // WORD_BITS) for leaves in self.leaves), initial=0))


def export_trees(estimator: Any, features: Sequence[Feature], task: Task) -> bytes:
    """Writes the `trees.npz` of a fitted estimator that `export_model` can export.

    Args:
        estimator: fitted on the matrix of `features`.
        features: the matrix's columns, in order.
        task: what the estimator was fitted for.

    Raises:
        NotSummable: it is no histogram boosting that reads the matrix itself, or too large.
        NotExportable: as `export_model`.
    """
    steps, booster = split_steps(estimator)
    if steps or type(booster) not in BOOSTERS:
        raise NotSummable(estimator, "only histogram boosting that reads the matrix itself is a sum of trees")
    columns, baseline = read_columns(booster, features), baseline_of(booster)
    forest = Forest()
    for iteration, predictors in enumerate(booster._predictors):
        for output, predictor in enumerate(predictors):
            forest.add_tree(predictor, columns, float(baseline[output]) if iteration == 0 else None)
    if _table_rows(features) * forest.words()[-1] > MAX_CODED_WORDS:
        raise NotSummable(booster, "its trees and categories are too many for tables; grow fewer")
    return to_bytes(_arrays(forest, features, len(baseline)), describe(booster, features, task, FORMAT))


def _arrays(forest: Forest, features: Sequence[Feature], outputs: int) -> Arrays:
    return {
        **_thresholds(forest, features),
        **_tables(forest, features),
        **_leaves(forest),
        "outputs": np.array(outputs, dtype=np.uint32),
    }


def _thresholds(forest: Forest, features: Sequence[Feature]) -> Arrays:
    """What numbers take away, in the order of the thresholds of each feature."""
    found: list[list[tuple[float, int, int]]] = [[] for _ in features]
    for removal, word, mask in _masks(forest):
        if features[removal.split.feature].kind == "numeric":
            found[removal.split.feature].append((removal.split.threshold, word, mask))
    ordered = [entry for entries in found for entry in sorted(entries)]
    return {
        "threshold_start": _starts(map(len, found)),
        "threshold": np.array([threshold for threshold, _, _ in ordered], dtype=np.float64),
        "word": np.array([word for _, word, _ in ordered], dtype=np.uint32),
        "mask": np.array([mask for _, _, mask in ordered], dtype=np.uint32),
    }


def _tables(forest: Forest, features: Sequence[Feature]) -> Arrays:
    """What codes of categories and missing values leave."""
    words = forest.words()[-1]
    tables = [np.full((_rows(feature), words), _ALL, dtype=np.uint32) for feature in features]
    for removal, word, mask in _masks(forest):
        feature = removal.split.feature
        tables[feature][_false_rows(removal.split, features[feature]), word] &= np.uint32(mask)
    coded = np.concatenate(tables) if tables else np.empty((0, words), dtype=np.uint32)
    return {"coded_start": _starts(map(len, tables)), "coded": coded}


def _leaves(forest: Forest) -> Arrays:
    firsts = accumulate(map(len, forest.leaves), initial=0)
    inside = [range(first, last, WORD_BITS) for first, last in pairwise(firsts)]
    return {
        "tree_start": np.array(forest.words(), dtype=np.uint32),
        "word_leaf": np.array([leaf for leaves in inside for leaf in leaves], dtype=np.uint32),
        "leaf": np.array([leaf for leaves in forest.leaves for leaf in leaves], dtype=np.float64),
    }


def _masks(forest: Forest) -> Iterator[tuple[Removal, int, int]]:
    """Gives each removal with the words that it changes, and what it keeps of each."""
    words = forest.words()
    for removal in forest.removals:
        for at in range(removal.first // WORD_BITS, -(-removal.last // WORD_BITS)):
            low = max(removal.first - at * WORD_BITS, 0)
            high = min(removal.last - at * WORD_BITS, WORD_BITS)
            yield removal, words[removal.tree] + at, _ALL ^ (2**high - 2**low)


def _rows(feature: Feature) -> int:
    """Of its table: each code, then codes that there are not, then a missing value; of a number this one alone."""
    return 1 if feature.kind == "numeric" else len(feature.categories) + 2


def _table_rows(features: Sequence[Feature]) -> int:
    return sum(map(_rows, features))


def _false_rows(split: Split, feature: Feature) -> list[int]:
    """The rows of the feature's table whose values answer "false"."""
    missing = [] if split.missing else [_rows(feature) - 1]
    if feature.kind == "numeric":
        return missing
    codes = range(len(feature.categories))
    true = {code for code in codes if code <= split.threshold} if split.mode == LESS_OR_EQUAL else set(split.members)
    return [*(code for code in codes if code not in true), len(codes), *missing]


def _starts(lengths: Iterator[int]) -> Any:
    return np.cumsum([0, *lengths]).astype(np.uint32)
