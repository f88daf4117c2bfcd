"""Whether one model is better than another on the same rows, and how sure that is.

The difference of two AUCs has the variance of DeLong et al. (*Biometrics* 44, 1988), computed by midranks (Sun and Xu,
*IEEE Signal Processing Letters* 21, 2014). The difference of two shares of explained variance is a ratio of sums, by
the delta method. Both are what a paired bootstrap over rows converges to, at the cost of a sort and without chance.
"""

from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from esteira.metrics import midranks
from esteira.scoring import Array
from trainer.evaluate import Task, has_contrast

MIN_SLICE_ROWS = 200


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Challenger minus champion in the main metric; above 0 the challenger is better."""

    value: float
    low: float
    """Lower end of the two-sided confidence interval."""
    high: float
    rows: int


class SliceDifference(msgspec.Struct, frozen=True, kw_only=True):
    """The difference among the rows where `feature` has `value`."""

    feature: str
    value: str
    difference: Difference


def compare(task: Task, label: Array, challenger: Array, champion: Array, confidence: float) -> Difference:
    """Compares two models that scored the same rows, whose labels differ.

    Args:
        task: decides the main metric.
        label: shape (rows,).
        challenger: its scores of these rows.
        champion: its scores of these rows.
        confidence: of the two-sided interval.
    """
    measure = _auc_difference if task == "classification" else _r2_difference
    value, influence = measure(label, challenger, champion)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * float(np.sqrt(np.sum(influence**2)))
    return Difference(value=value, low=value - reach, high=value + reach, rows=len(label))


def compare_slices(
    task: Task,
    feature: str,
    values: npt.NDArray[Any],
    label: Array,
    challenger: Array,
    champion: Array,
    confidence: float,
) -> list[SliceDifference]:
    """Compares among the rows of each value of a feature, given as one text for each row.

    Values with fewer than `MIN_SLICE_ROWS` rows, or with one kind of label, are left out.
    """
    found = []
    for value, count in zip(*np.unique(values, return_counts=True), strict=True):
        rows = values == value
        if count < MIN_SLICE_ROWS or not has_contrast(label[rows]):
            continue
        difference = compare(task, label[rows], challenger[rows], champion[rows], confidence)
        found.append(SliceDifference(feature=feature, value=str(value), difference=difference))
    return found


def _auc_difference(label: Array, challenger: Array, champion: Array) -> tuple[float, Array]:
    ours, theirs = _auc_influence(label, challenger), _auc_influence(label, champion)
    return ours[0] - theirs[0], ours[1] - theirs[1]


def _auc_influence(label: Array, score: Array) -> tuple[float, Array]:
    """The AUC, and what each row adds to its error: the sum of squares is DeLong's variance."""
    positive = label > 0.5
    m, n = int(positive.sum()), int((~positive).sum())
    ranks = midranks(score)
    above = (ranks[positive] - midranks(score[positive])) / n
    below = 1.0 - (ranks[~positive] - midranks(score[~positive])) / m
    auc = float(above.mean())
    influence = np.empty(len(label))
    influence[positive] = (above - auc) / m
    influence[~positive] = (below - auc) / n
    return auc, influence


def _r2_difference(label: Array, challenger: Array, champion: Array) -> tuple[float, Array]:
    gain = (label - champion) ** 2 - (label - challenger) ** 2
    spread = (label - label.mean()) ** 2
    value = float(gain.sum() / spread.sum())
    return value, (gain - value * spread) / spread.sum()
