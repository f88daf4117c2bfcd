"""How well scores foretold labels, with the uncertainty of each figure.

Classification: labels are 0 or 1, scores probabilities of 1. Regression: labels and scores in the same unit.
"""

from statistics import NormalDist

import msgspec
import numpy as np
import numpy.typing as npt

from esteira.exceptions import NotEnoughData
from esteira.metrics import midranks

Array = npt.NDArray[np.float64]

MIN_PROBABILITY = 1e-15
CALIBRATION_BINS = 10


class UndefinedMeasure(NotEnoughData):
    """The labels do not define this measure: too few rows, or all of one class or value."""


class Estimate(msgspec.Struct, frozen=True):
    """A figure with its confidence interval."""

    value: float
    low: float
    high: float


def critical_value(confidence: float) -> float:
    """How many standard errors a two-sided interval of that confidence reaches to each side."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def area_under_roc_curve(labels: Array, scores: Array, confidence: float = 0.95) -> Estimate:
    """The chance that a random positive scores above a random negative, ties counting half.

    Mann-Whitney's U by midranks (Hanley and McNeil, 1982). The standard error is DeLong's (DeLong, DeLong and
    Clarke-Pearson, *Biometrics*, 1988) in the form of Sun and Xu (2014); the interval is normal, cut at 0 and 1.

    Raises:
        UndefinedMeasure: fewer than two rows of either class.
    """
    above_negatives, below_positives = _placements(labels, scores)
    found = _mean_placement(above_negatives, below_positives, confidence)
    return Estimate(found.value, max(0.0, found.low), min(1.0, found.high))


def area_difference(labels: Array, before: Array, now: Array, confidence: float = 0.95) -> Estimate:
    """The AUC of the scores `now` minus that of the scores `before`, both of the same rows.

    DeLong's interval for correlated curves (DeLong, DeLong and Clarke-Pearson, *Biometrics*, 1988): placements are
    subtracted row by row, so that what both scores have in common cancels out.

    Raises:
        UndefinedMeasure: fewer than two rows of either class.
    """
    old, new = _placements(labels, before), _placements(labels, now)
    return _mean_placement(new[0] - old[0], new[1] - old[1], confidence)


def _placements(labels: Array, scores: Array) -> tuple[Array, Array]:
    """Of each positive the share of negatives below it, of each negative the share of positives above it."""
    positive, negative = scores[labels > 0.5], scores[labels <= 0.5]
    m, n = len(positive), len(negative)
    if min(m, n) < 2:
        raise UndefinedMeasure(f"AUC needs two rows of each class, found {m} positive and {n} negative")
    among_all = midranks(np.concatenate([positive, negative]))
    return (among_all[:m] - midranks(positive)) / n, 1 - (among_all[m:] - midranks(negative)) / m


def _mean_placement(positive: Array, negative: Array, confidence: float) -> Estimate:
    error = float(np.sqrt(positive.var(ddof=1) / len(positive) + negative.var(ddof=1) / len(negative)))
    value, reach = float(positive.mean()), critical_value(confidence) * error
    return Estimate(value, value - reach, value + reach)


def log_loss(labels: Array, scores: Array) -> float:
    """Mean negative log-likelihood in nats (Good, 1952), probabilities kept `MIN_PROBABILITY` from 0 and 1."""
    _require_rows(labels, 1)
    clipped = np.clip(scores, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return float(-np.mean(labels * np.log(clipped) + (1 - labels) * np.log1p(-clipped)))


def brier_score(labels: Array, scores: Array) -> float:
    """Mean squared difference of probability and label (Brier, 1950)."""
    _require_rows(labels, 1)
    return float(np.mean((scores - labels) ** 2))


def expected_calibration_error(labels: Array, scores: Array, bins: int = CALIBRATION_BINS) -> float:
    """Mean gap of observed rate and mean score over bins of equal width, weighted by rows (Naeini et al., 2015)."""
    _require_rows(labels, 1)
    index = np.clip((scores * bins).astype(np.int64), 0, bins - 1)
    gaps = np.bincount(index, weights=labels - scores, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def relative_bias(labels: Array, scores: Array, confidence: float = 0.95) -> Estimate:
    """How far the mean score is off the mean label, relative to it: 0.1 is a tenth too high.

    The interval is that of a ratio of paired means by linearisation (Cochran, *Sampling Techniques*, 1977, 6.4).

    Raises:
        UndefinedMeasure: fewer than two rows, or a mean label of 0.
    """
    ratio = _ratio_of_means(scores, labels, confidence)
    return Estimate(ratio.value - 1, ratio.low - 1, ratio.high - 1)


def observed_to_expected(labels: Array, scores: Array, confidence: float = 0.95) -> Estimate:
    """Observed over expected: mean label by mean score, 1 being calibrated in the large.

    The interval is that of a ratio of paired means by linearisation (Cochran, *Sampling Techniques*, 1977, 6.4).

    Raises:
        UndefinedMeasure: fewer than two rows, or a mean score of 0.
    """
    return _ratio_of_means(labels, scores, confidence)


def r_squared(labels: Array, scores: Array, confidence: float = 0.95) -> Estimate:
    """The share of the labels' variance that the scores explain, with the interval of its linearisation.

    R2 is 1 - mean squared error by variance; its standard error is that of a ratio of means over the same rows
    (delta method; van der Vaart, *Asymptotic Statistics*, 1998, chapter 3).

    Raises:
        UndefinedMeasure: fewer than two rows, or labels that are all equal.
    """
    _require_rows(labels, 2)
    squared_error, spread = (labels - scores) ** 2, (labels - labels.mean()) ** 2
    variance = float(spread.mean())
    if variance == 0:
        raise UndefinedMeasure("R2 needs labels that differ")
    ratio = float(squared_error.mean()) / variance
    error = float(np.std(squared_error - ratio * spread, ddof=1)) / np.sqrt(len(labels)) / variance
    reach = float(critical_value(confidence) * error)
    return Estimate(1 - ratio, 1 - ratio - reach, min(1.0, 1 - ratio + reach))


def r_squared_difference(labels: Array, before: Array, now: Array, confidence: float = 0.95) -> Estimate:
    """R2 of the scores `now` minus that of the scores `before`, both of the same rows; with an interval of its kind.

    Raises:
        UndefinedMeasure: fewer than two rows, or labels that are all equal.
    """
    _require_rows(labels, 2)
    spread = (labels - labels.mean()) ** 2
    if not spread.any():
        raise UndefinedMeasure("R2 needs labels that differ")
    return _ratio_of_means((labels - before) ** 2 - (labels - now) ** 2, spread, confidence)


def mean_absolute_error(labels: Array, scores: Array) -> float:
    """Mean distance of score and label, in their unit."""
    _require_rows(labels, 1)
    return float(np.mean(np.abs(scores - labels)))


def root_mean_squared_error(labels: Array, scores: Array) -> float:
    """Root of the mean squared distance, in the labels' unit."""
    return float(np.sqrt(brier_score(labels, scores)))


def mean_bias(labels: Array, scores: Array, confidence: float = 0.95) -> Estimate:
    """How far scores lie above labels in the mean, with a normal interval.

    Raises:
        UndefinedMeasure: fewer than two rows.
    """
    _require_rows(labels, 2)
    gaps = scores - labels
    value = float(gaps.mean())
    reach = float(critical_value(confidence) * gaps.std(ddof=1) / np.sqrt(len(gaps)))
    return Estimate(value, value - reach, value + reach)


def _ratio_of_means(above: Array, below: Array, confidence: float) -> Estimate:
    _require_rows(below, 2)
    divisor = float(below.mean())
    if divisor == 0:
        raise UndefinedMeasure("a ratio of scores and labels needs means that are not 0")
    ratio = float(above.mean()) / divisor
    error = float(np.std(above - ratio * below, ddof=1)) / np.sqrt(len(below)) / abs(divisor)
    reach = float(critical_value(confidence) * error)
    return Estimate(ratio, ratio - reach, ratio + reach)


def _require_rows(labels: Array, rows: int) -> None:
    if len(labels) < rows:
        raise UndefinedMeasure(f"needs {rows} labelled rows or more, found {len(labels)}")
