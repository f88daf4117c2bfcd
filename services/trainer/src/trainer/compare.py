"""Whether one model is better than another on the same rows, and how sure that is.

The difference of two AUCs has the variance of DeLong et al. (*Biometrics* 44, 1988), computed by midranks (Sun and Xu,
*IEEE Signal Processing Letters* 21, 2014); rows of one cluster, such as a day, are not independent, so their
contributions are summed first (Obuchowski, *Biometrics* 53, 1997). The difference of two shares of explained variance
is a ratio of sums, by the delta method. Both are what a paired bootstrap (of whole clusters) converges to, at the
cost of a sort and without chance.
"""

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from esteira.scoring import Array
from trainer.evaluate import Task, has_contrast, midranks

Codes = npt.NDArray[Any]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Challenger minus champion in the main metric; above 0 the challenger is better."""

    value: float
    low: float
    """Lower end of the two-sided confidence interval."""
    high: float
    rows: int
    clusters: int


class SliceDifference(msgspec.Struct, frozen=True, kw_only=True):
    """The difference among the rows where `feature` has `value`."""

    feature: str
    value: str
    difference: Difference


def compare(
    task: Task, label: Array, challenger: Array, champion: Array, confidence: float, clusters: Codes | None = None
) -> Difference:
    """Compares two models that scored the same rows, whose labels differ.

    Args:
        label, challenger, champion: shape (rows,).
        confidence: of the two-sided interval.
        clusters: rows of equal code depend on each other; None where each row stands for itself.
    """
    measure = _auc_difference if task == "classification" else _r2_difference
    value, influence = measure(label, challenger, champion)
    sums = influence if clusters is None else _sum_by(clusters, influence)
    count = len(sums)
    if count < 2:
        return Difference(value=value, low=-np.inf, high=np.inf, rows=len(label), clusters=count)
    error = float(np.sqrt(count / (count - 1) * np.sum(sums**2)))
    reach = float(stdtrit(count - 1, (1 + confidence) / 2)) * error
    return Difference(value=value, low=value - reach, high=value + reach, rows=len(label), clusters=count)


def compare_slices(
    task: Task,
    feature: str,
    values: npt.NDArray[Any],
    label: Array,
    scores: tuple[Array, Array],
    confidence: float,
    clusters: Codes | None = None,
    min_rows: int = 200,
) -> list[SliceDifference]:
    """Compares among the rows of each value of a feature; values with few rows or one kind of label are left out.

    Args:
        scores: the challenger's and the champion's.
        values: one text for each row.
    """
    found = []
    for value, count in zip(*np.unique(values, return_counts=True), strict=True):
        rows = values == value
        if count < min_rows or not has_contrast(label[rows]):
            continue
        groups = None if clusters is None else clusters[rows]
        difference = compare(task, label[rows], scores[0][rows], scores[1][rows], confidence, groups)
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


def _sum_by(codes: Codes, values: Array) -> Array:
    _, inverse = np.unique(codes, return_inverse=True)
    return np.bincount(inverse, weights=values)
