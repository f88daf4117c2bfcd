"""What explanations are held against: the Shapley value by its definition, and the `shap` package."""

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest

from esteira.scoring import Array


def import_shap() -> Any:
    """Gives the package `shap`; skips the tests of the module where there is none for the machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of matplotlib, at import
        return pytest.importorskip("shap")


def brute_force(booster: Any, row: Array) -> tuple[float, Array]:
    """Sums over all subsets of features, each valued by letting the row fall down scikit-learn's own fitted trees.

    Returns:
        The value of no features, and each feature's Shapley value.
    """
    width = len(row)
    worth = {
        known: _value(booster, row, frozenset(known))
        for size in range(width + 1)
        for known in itertools.combinations(range(width), size)
    }
    values = np.zeros(width)
    for feature in range(width):
        others = [other for other in range(width) if other != feature]
        for size in range(width):
            weight = math.factorial(size) * math.factorial(width - size - 1) / math.factorial(width)
            for known in itertools.combinations(others, size):
                values[feature] += weight * (worth[tuple(sorted((*known, feature)))] - worth[known])
    return worth[()], values


def _value(booster: Any, row: Array, known: frozenset[int]) -> float:
    """The game of path-dependent TreeSHAP: unknown features send the row down both sides, weighted by counts."""
    internal, sources = _internal(booster, row)
    total = float(np.ravel(booster._baseline_prediction)[0])
    for (predictor,) in booster._predictors:
        total += _fall(predictor, 0, internal, {at for at, source in enumerate(sources) if source in known})
    return total


def _internal(booster: Any, row: Array) -> tuple[Array, list[int]]:
    """The row as scikit-learn's trees see it, and which feature each of its columns is."""
    categorical = booster.is_categorical_
    if categorical is None:
        return row, list(range(len(row)))
    prepared = booster._preprocessor.transform(row[None])[0]
    return prepared, [*np.flatnonzero(categorical).tolist(), *np.flatnonzero(~categorical).tolist()]


def _fall(predictor: Any, at: int, row: Array, known: set[int]) -> float:
    node = predictor.nodes[at]
    if node["is_leaf"]:
        return float(node["value"])
    left, right = int(node["left"]), int(node["right"])
    if int(node["feature_idx"]) in known:
        return _fall(predictor, left if _goes_left(predictor, node, row) else right, row, known)
    counts = predictor.nodes["count"]
    return sum(
        float(counts[side]) / float(node["count"]) * _fall(predictor, side, row, known) for side in (left, right)
    )


def _goes_left(predictor: Any, node: Any, row: Array) -> bool:
    """Follows scikit-learn's `_predict_one_from_raw_data`."""
    value = float(row[int(node["feature_idx"])])
    if math.isnan(value):
        return bool(node["missing_go_to_left"])
    if not node["is_categorical"]:
        return bool(value <= float(node["num_threshold"]))
    word, bit = divmod(int(value), 32)
    return bool(int(predictor.raw_left_cat_bitsets[int(node["bitset_idx"])][word]) >> bit & 1)
