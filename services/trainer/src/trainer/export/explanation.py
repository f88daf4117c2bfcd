"""What a release carries to explain its scores: a fitted estimator as the arrays of `esteira.attribution`."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from esteira.attribution import CHUNK, LinearMethod, TreeMethod
from esteira.explanation import Explainer, to_bytes
from esteira.schema import Feature
from esteira.scoring import Array, OnnxModel
from trainer.export.additive import Code, Number, trace
from trainer.export.graph import NotExplainable
from trainer.export.linear import CEILING
from trainer.export.model import BOOSTERS, split_steps
from trainer.export.paths import Conditions, Leaf, find_leaves
from trainer.export.trees import read_columns

EXPLANATION_TOLERANCE: Final = 1e-9
MAX_ENTRIES: Final = 500_000
"""Features on paths, over all leaves: a file of 3 MB, tables of 30 MB, and 14 ms for a row."""


class Additivity(msgspec.Struct, frozen=True):
    """Whether explanations sum to the scores that they explain."""

    rows: int
    max_difference: float
    """Relative to the row's absolute terms, at least to 1."""

    @property
    def passed(self) -> bool:
        """Whether every row's sum is its raw score within `EXPLANATION_TOLERANCE`."""
        return self.max_difference <= EXPLANATION_TOLERANCE


def export_explanation(estimator: Any, features: Sequence[Feature], matrix: Array) -> bytes:
    """Writes the `explanation.npz` of a fitted estimator that `export_model` can export.

    Args:
        estimator: fitted on the matrix of `features`.
        features: the matrix's columns, in order.
        matrix: the training rows, at least one: a linear model's contributions are measured from their mean.

    Raises:
        NotExplainable: there is no explainer for the estimator: it has several outputs, more leaves than serving could
            explain in time, or a prepared column that is no scaled number.
    """
    steps, final = split_steps(estimator)
    if type(final) not in BOOSTERS:
        return to_bytes(_linear(steps, final, features, matrix), features)
    if steps:
        raise NotExplainable(estimator, "boosting behind a transformer is not explained; give it the matrix itself")
    return to_bytes(_trees(final, features), features)


def check_additivity(data: bytes, model: OnnxModel, matrix: Array) -> Additivity:
    """Explains the rows of `matrix`, at least one, as serving will, and sums up."""
    base, contributions = Explainer(data, model.encoder.features).explain(matrix)
    scale = np.maximum(1.0, abs(base) + np.abs(contributions).sum(axis=1))
    sums, raw = base + contributions.sum(axis=1), model.raw(matrix)[:, 0]
    difference = np.where(np.isnan(sums) & np.isnan(raw), 0.0, np.abs(sums - raw) / scale)
    return Additivity(len(matrix), float(np.where(np.isnan(difference), np.inf, difference).max()))


def _trees(booster: Any, features: Sequence[Feature]) -> TreeMethod:
    baseline = np.asarray(booster._baseline_prediction, dtype=np.float64).ravel()
    if len(baseline) > 1:
        raise NotExplainable(booster, "scores of more than two classes are not explained")
    conditions = Conditions(features)
    leaves = list(_leaves(booster, features, conditions))
    base = float(baseline[0]) + sum(leaf.value * float(np.prod(leaf.shares)) for leaf in leaves)
    leaves.sort(key=lambda leaf: len(leaf.conditions))
    return TreeMethod(
        base=np.array(base),
        **conditions.arrays(),
        leaf_value=np.array([leaf.value for leaf in leaves], dtype=np.float64),
        leaf_size=np.array([len(leaf.conditions) for leaf in leaves], dtype=np.int32),
        entry_condition=conditions.positions(entry for leaf in leaves for entry in leaf.conditions),
        entry_share=np.array([share for leaf in leaves for share in leaf.shares], dtype=np.float64),
    )


def _leaves(booster: Any, features: Sequence[Feature], conditions: Conditions) -> Iterator[Leaf]:
    columns, entries = read_columns(booster, features), 0
    for (predictor,) in booster._predictors:
        for leaf in find_leaves(predictor, columns, conditions):
            if (entries := entries + len(leaf.conditions)) > MAX_ENTRIES:
                raise NotExplainable(booster, f"its paths ask over {MAX_ENTRIES} conditions; grow fewer leaves")
            yield leaf


def _linear(steps: Sequence[Any], model: Any, features: Sequence[Feature], matrix: Array) -> LinearMethod:
    coefficients = np.atleast_2d(model.coef_)
    if len(coefficients) > 1:
        raise NotExplainable(model, "scores of more than two classes are not explained")
    columns = list(zip(trace(steps, features), coefficients[0].tolist(), strict=True))
    numbers = [(column, coefficient) for column, coefficient in columns if isinstance(column, Number)]
    codes = [(column, coefficient) for column, coefficient in columns if isinstance(column, Code)]
    method = LinearMethod(
        base=np.array(0.0),
        ceiling=np.array(CEILING),
        number_feature=np.array([number.feature for number, _ in numbers], dtype=np.int32),
        center=np.array([number.center for number, _ in numbers], dtype=np.float64),
        scale=np.array([number.scale for number, _ in numbers], dtype=np.float64),
        missing=np.array([number.missing for number, _ in numbers], dtype=np.float64),
        coefficient=np.array([coefficient for _, coefficient in numbers], dtype=np.float64),
        **_code_terms(codes, features),
        mean=np.zeros(len(features)),
    )
    mean = _mean_terms(method, matrix)
    base = float(np.ravel(model.intercept_)[0]) + float(mean.sum())
    return msgspec.structs.replace(method, mean=mean, base=np.array(base))


def _code_terms(codes: Sequence[tuple[Code, float]], features: Sequence[Feature]) -> dict[str, Any]:
    """Sums the terms of each categorical feature; codes that it lacks are padded by zeros."""
    used = sorted({code.feature for code, _ in codes})
    terms = np.zeros((len(used), 1 + max((len(features[feature].categories) for feature in used), default=0)))
    for code, coefficient in codes:
        terms[used.index(code.feature), : len(code.values)] += np.clip(code.values, -CEILING, CEILING) * coefficient
    return {"code_feature": np.array(used, dtype=np.int32), "code_terms": terms}


def _mean_terms(method: LinearMethod, matrix: Array) -> Array:
    rows = max(1, CHUNK // matrix.shape[1])
    parts = [method.terms(matrix[start : start + rows]).sum(axis=0) for start in range(0, len(matrix), rows)]
    mean: Array = np.sum(parts, axis=0) / len(matrix)
    return mean
