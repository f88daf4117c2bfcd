"""How far live data has moved from the data that a model was released with."""

import numpy as np
import numpy.typing as npt

from esteira.exceptions import NotEnoughData

Counts = npt.ArrayLike

MIN_SHARE = 1e-4
"""The share that an empty bin is given, so that its logarithm exists."""


class InsufficientSample(NotEnoughData):
    """There are too few rows to measure this."""


def population_stability_index(reference: Counts, current: Counts) -> float:
    """Measures how far the binned `current` has moved from `reference`, in nats.

    Symmetric Kullback-Leibler divergence over shared bins; 0 is identical, 0.1 to 0.25 a moderate shift
    (Siddiqi, *Credit Risk Scorecards*, 2006). Empty bins are floored at `MIN_SHARE`, never dropped: a category that
    vanishes must raise the score. Without any shift its expectation is near (bins - 1) * (1/n + 1/m) for n and m rows
    (Yurdakul and Naranjo, *Statistical properties of the population stability index*, 2020).

    Args:
        reference: shape (bins,), non-negative counts, not all zero.
        current: the same shape and bin order.

    Raises:
        InsufficientSample: either side has fewer rows than bins.
    """
    expected, actual = _shares(reference, "reference"), _shares(current, "current")
    if expected.shape != actual.shape:
        raise ValueError(f"reference has {expected.size} bins, current {actual.size}; count both into the same bins")
    return float(np.sum((actual - expected) * np.log(actual / expected)))


def _shares(counts: Counts, side: str) -> npt.NDArray[np.float64]:
    found = np.asarray(counts, dtype=np.float64)
    rows = found.sum()
    if rows < max(found.size, 1):
        raise InsufficientSample(f"{side} has {rows:.0f} rows in {found.size} bins; at least one for each is needed")
    floored = np.maximum(found / rows, MIN_SHARE)
    return np.asarray(floored / floored.sum())
