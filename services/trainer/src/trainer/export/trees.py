"""Histogram gradient boosting as one `TreeEnsemble`, in double precision.

Bit-equal to scikit-learn on one thread, because it makes the same comparisons with the same doubles and the same
additions in the same order: scikit-learn adds the trees to the baseline one by one, so the baseline is folded into the
leaves of the first tree of each output.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from onnx import helper, numpy_helper

from esteira.schema import Feature
from esteira.scoring import Array
from trainer.export.graph import Graph, NotExportable

LESS_OR_EQUAL: Final = 0
MEMBER: Final = 6
NO_MEMBER: Final = -1.0
"""Less than any code: `code <= NO_MEMBER` holds for no category."""


class Column(msgspec.Struct, frozen=True):
    """Where an internal column of the booster comes from."""

    feature: int
    codes: Array | None
    """For a category: the code in the matrix of each internal code, in order; None for a number."""
    unknown: tuple[float, ...] = ()
    """Codes of the feature that training did not see: scikit-learn treats them as missing."""


class Split(msgspec.Struct, frozen=True):
    """The question of an inner node: true leads to scikit-learn's left."""

    feature: int
    mode: int
    threshold: float
    members: tuple[float, ...]
    missing: bool
    """Whether a missing value counts as true."""


class Ensemble:
    """The parallel lists that the operator takes, filled tree by tree."""

    def __init__(self) -> None:
        self.splits: list[Split] = []
        self.branches: list[tuple[int, int, int, int]] = []
        """Per split: the position of its true and false side, and whether each is a leaf."""
        self.leaves: list[tuple[int, float]] = []
        """Per leaf: output and weight."""
        self.roots: list[int] = []

    def add_tree(self, predictor: Any, columns: Sequence[Column], output: int, baseline: float | None) -> None:
        """Adds one fitted tree; `baseline` is added to its leaves, as the first addition."""
        nodes = predictor.nodes
        places = _places(nodes["is_leaf"], len(self.splits), len(self.leaves))
        self.leaves += [(output, weigh(node, baseline)) for node in nodes[nodes["is_leaf"] == 1]]
        self.roots.append(len(self.splits))
        if nodes[0]["is_leaf"]:
            self._add_split(Split(0, LESS_OR_EQUAL, 0.0, (), False), (places[0], places[0], 1, 1))
        for node in nodes[nodes["is_leaf"] == 0]:
            left, right = int(node["left"]), int(node["right"])
            sides = (places[left], places[right], int(nodes[left]["is_leaf"]), int(nodes[right]["is_leaf"]))
            self._add_split(read_split(node, columns, predictor.raw_left_cat_bitsets), sides)

    def _add_split(self, split: Split, sides: tuple[int, int, int, int]) -> None:
        self.splits.append(split)
        self.branches.append(sides)

    def attributes(self, outputs: int) -> dict[str, Any]:
        """Gives the operator's attributes."""
        true, false, true_leaf, false_leaf = zip(*self.branches, strict=True)
        modes = np.array([split.mode for split in self.splits], dtype=np.uint8)
        attributes: dict[str, Any] = {
            "aggregate_function": 1,
            "post_transform": 0,
            "n_targets": outputs,
            "tree_roots": self.roots,
            "nodes_featureids": [split.feature for split in self.splits],
            "nodes_modes": helper.make_tensor("modes", 2, modes.shape, modes.tolist()),
            "nodes_splits": _doubles("splits", [split.threshold for split in self.splits]),
            "nodes_missing_value_tracks_true": [int(split.missing) for split in self.splits],
            "nodes_truenodeids": true,
            "nodes_falsenodeids": false,
            "nodes_trueleafs": true_leaf,
            "nodes_falseleafs": false_leaf,
            "leaf_targetids": [output for output, _ in self.leaves],
            "leaf_weights": _doubles("weights", [weight for _, weight in self.leaves]),
        }
        if members := [value for split in self.splits if split.mode == MEMBER for value in (*split.members, np.nan)]:
            attributes["membership_values"] = _doubles("members", members)
        return attributes


def add_booster(graph: Graph, booster: Any, tensor: str, features: Sequence[Feature] | None) -> tuple[str, int]:
    """Adds a fitted `HistGradientBoosting*` that reads `tensor`.

    Args:
        graph: the graph under construction.
        booster: the fitted estimator.
        tensor: its input.
        features: what the columns of `tensor` are; None behind a transformer, where categories are not known.

    Returns:
        The tensor of sums and its width.

    Raises:
        NotExportable: its categories are not codes of categorical features.
    """
    columns = read_columns(booster, features)
    baseline = baseline_of(booster)
    ensemble = Ensemble()
    for iteration, predictors in enumerate(booster._predictors):
        for output, predictor in enumerate(predictors):
            ensemble.add_tree(predictor, columns, output, float(baseline[output]) if iteration == 0 else None)
    attributes = ensemble.attributes(len(baseline))
    return graph.add("TreeEnsemble", tensor, domain="ai.onnx.ml", **attributes), len(baseline)


def baseline_of(booster: Any) -> Array:
    """What the trees of each output are added to."""
    return np.asarray(booster._baseline_prediction, dtype=np.float64).ravel()


def thresholds(booster: Any) -> dict[int, Array]:
    """Gives the finite thresholds of each numeric feature, by the feature's index in the matrix."""
    columns = list(_sources(booster))
    nodes = np.concatenate([tree.nodes for trees in booster._predictors for tree in trees])
    nodes = nodes[(nodes["is_leaf"] == 0) & (nodes["is_categorical"] == 0) & np.isfinite(nodes["num_threshold"])]
    used = np.unique(nodes["feature_idx"])
    return {columns[i]: np.unique(nodes["num_threshold"][nodes["feature_idx"] == i]) for i in used.tolist()}


def _sources(booster: Any) -> Iterator[int]:
    """Gives the feature behind each internal column: the booster puts categorical columns first."""
    if booster.is_categorical_ is None:
        return iter(range(booster.n_features_in_))
    return iter([*np.flatnonzero(booster.is_categorical_).tolist(), *np.flatnonzero(~booster.is_categorical_).tolist()])


def read_columns(booster: Any, features: Sequence[Feature] | None) -> list[Column]:
    sources = list(_sources(booster))
    if booster.is_categorical_ is None or not booster.is_categorical_.any():
        return [Column(feature, None) for feature in sources]
    if features is None:
        raise NotExportable(booster, "its categorical features come out of a transformer; pass them unchanged")
    seen = booster._preprocessor.named_transformers_["encoder"].categories_
    categorical = [
        _categorical(booster, features[source], source, codes) for source, codes in zip(sources, seen, strict=False)
    ]
    return [*categorical, *(Column(source, None) for source in sources[len(seen) :])]


def _categorical(booster: Any, feature: Feature, source: int, seen: npt.NDArray[Any]) -> Column:
    if seen.dtype.kind not in "fiu":
        raise NotExportable(booster, f"`{feature.name}` was fitted with categories that are no codes of the matrix")
    codes = seen[~np.isnan(seen)].astype(np.float64)
    known = set(map(float, range(len(feature.categories))))
    if feature.kind != "categorical" or not known.issuperset(codes.tolist()):
        raise NotExportable(booster, f"`{feature.name}` is categorical to it but not in the pipeline; declare it so")
    return Column(source, codes, tuple(sorted(known.difference(codes.tolist()))))


def _places(is_leaf: npt.NDArray[Any], first_split: int, first_leaf: int) -> list[int]:
    """Numbers splits and leaves apart, each in the order of the tree's nodes."""
    leaf = is_leaf.astype(bool)
    places: list[int] = np.where(leaf, np.cumsum(leaf) - 1 + first_leaf, np.cumsum(~leaf) - 1 + first_split).tolist()
    return places


def weigh(node: Any, baseline: float | None) -> float:
    """What a leaf adds, in a first tree on top of the baseline."""
    return float(node["value"]) if baseline is None else baseline + float(node["value"])


def read_split(node: Any, columns: Sequence[Column], bitsets: npt.NDArray[np.uint32]) -> Split:
    """The question of an inner node, about the matrix."""
    column, missing = columns[int(node["feature_idx"])], bool(node["missing_go_to_left"])
    if not node["is_categorical"] or column.codes is None:
        return Split(column.feature, LESS_OR_EQUAL, float(node["num_threshold"]), (), missing)
    bits = np.unpackbits(bitsets[int(node["bitset_idx"])].view(np.uint8), bitorder="little")
    left = column.codes[bits[: len(column.codes)] == 1].tolist()
    members = tuple(sorted([*left, *column.unknown] if missing else left))
    if not members:
        return Split(column.feature, LESS_OR_EQUAL, NO_MEMBER, (), missing)
    return Split(column.feature, MEMBER, 0.0, members, missing)


def _doubles(name: str, values: Sequence[float]) -> Any:
    return numpy_helper.from_array(np.array(values, dtype=np.float64), name)
