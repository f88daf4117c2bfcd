"""Histogram gradient boosting as the arrays of `esteira.trees`: for each split, the leaves that its "false" takes away."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from esteira.scoring import Metadata
from esteira.schema import Feature
from esteira.trees import WORD_BITS, TreeArrays, to_bytes
from trainer.export.trees import LESS_OR_EQUAL, Column, Split, baseline_of, read_columns, read_split, weigh

MAX_WORDS: Final = 1 << 22
"""Of the tables of categories and missing values together: 32 MB."""


class Removal(msgspec.Struct, frozen=True):
    """What an inner node does: "false" leaves none of the leaves `first` to `last` of its tree's true side."""

    split: Split
    tree: int
    first: int
    last: int


class Layout:
    """Trees as they are gathered, leaves from left to right."""

    def __init__(self) -> None:
        self.removals: list[Removal] = []
        self.tree_leaves: list[list[float]] = []

    def add_tree(self, predictor: Any, columns: Sequence[Column], baseline: float | None) -> None:
        """Adds one fitted tree; `baseline` is added to its leaves, as the first addition."""
        nodes, leaves = predictor.nodes, []
        open_nodes: list[tuple[int, int | None]] = [(0, None)]  # node, and where the leaves of its true side began
        while open_nodes:
            at, first = open_nodes.pop()
            node = nodes[at]
            if node["is_leaf"]:
                leaves.append(weigh(node, baseline))
            elif first is None:
                open_nodes += [(int(node["right"]), None), (at, len(leaves)), (int(node["left"]), None)]
            else:
                split = read_split(node, columns, predictor.raw_left_cat_bitsets)
                self.removals.append(Removal(split, len(self.tree_leaves), first, len(leaves)))
        self.tree_leaves.append(leaves)


def export_trees(booster: Any, features: Sequence[Feature], metadata: Metadata) -> bytes:
    """Writes the `trees.npz` of a fitted `HistGradientBoosting*` that reads the matrix itself.

    Raises:
        NotExportable: as `trainer.export.trees.add_booster`.
    """
    columns, baseline = read_columns(booster, features), baseline_of(booster)
    layout = Layout()
    for iteration, predictors in enumerate(booster._predictors):
        for output, predictor in enumerate(predictors):
            layout.add_tree(predictor, columns, float(baseline[output]) if iteration == 0 else None)
    return to_bytes(_arrays(layout, features, len(baseline)), metadata)


def _arrays(layout: Layout, features: Sequence[Feature], outputs: int) -> TreeArrays:
    counts = [len(leaves) for leaves in layout.tree_leaves]
    words = [-(-count // WORD_BITS) for count in counts]
    tree_start = np.cumsum([0, *words])
    first_leaf = np.cumsum([0, *counts])
    numbers: list[list[tuple[float, int, int]]] = [[] for _ in features]
    tables = [_blank(feature, int(tree_start[-1])) for feature in features]
    for removal in layout.removals:
        split = removal.split
        for word, mask in _masks(removal.first, removal.last, int(tree_start[removal.tree])):
            if split.mode == LESS_OR_EQUAL and features[split.feature].kind == "numeric":
                numbers[split.feature].append((split.threshold, word, mask))
            tables[split.feature][_false_rows(split, features[split.feature]), word] &= np.uint32(mask)
    ordered = [sorted(entries) for entries in numbers]
    flat = [entry for entries in ordered for entry in entries]
    return TreeArrays(
        threshold_start=np.cumsum([0, *map(len, ordered)]).astype(np.uint32),
        coded_start=np.cumsum([0, *map(len, tables)]).astype(np.uint32),
        threshold=np.array([threshold for threshold, _, _ in flat], dtype=np.float64),
        word=np.array([word for _, word, _ in flat], dtype=np.uint32),
        mask=np.array([mask for _, _, mask in flat], dtype=np.uint32),
        coded=np.concatenate(tables),
        tree_start=tree_start.astype(np.uint32),
        word_leaf=np.array(
            [first + WORD_BITS * at for first, count in zip(first_leaf, words, strict=False) for at in range(count)],
            dtype=np.uint32,
        ),
        leaf=np.array([leaf for leaves in layout.tree_leaves for leaf in leaves], dtype=np.float64),
        outputs=np.array(outputs, dtype=np.uint32),
    )


def _blank(feature: Feature, words: int) -> Any:
    rows = 1 if feature.kind == "numeric" else len(feature.categories) + 2
    return np.full((rows, words), 2**WORD_BITS - 1, dtype=np.uint32)


def _masks(first: int, last: int, word: int) -> Iterator[tuple[int, int]]:
    """The words that hold the leaves `first` to `last`, each with all other leaves kept."""
    for at in range(first // WORD_BITS, -(-last // WORD_BITS)):
        low, high = max(first - at * WORD_BITS, 0), min(last - at * WORD_BITS, WORD_BITS)
        yield word + at, (2**WORD_BITS - 1) ^ ((2**high - 1) ^ (2**low - 1))


def _false_rows(split: Split, feature: Feature) -> list[int]:
    """The rows of the feature's table that answer "false": codes, then other codes, then a missing value."""
    missing = [] if split.missing else [-1]
    if feature.kind == "numeric":
        return missing
    codes = len(feature.categories)
    true = set(split.members) if split.mode != LESS_OR_EQUAL else {c for c in range(codes) if c <= split.threshold}
    return [*(code for code in range(codes) if code not in true), codes, *([codes + 1] if missing else [])]
