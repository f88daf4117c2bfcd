"""Measures of performance that more than one part of Esteira takes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = Sequence[float] | npt.NDArray[np.float64]


def roc_auc(labels: Floats, scores: Floats) -> float | None:
    """The area under the ROC curve: the share of pairs of unlike labels that the scores put in order, ties half.

    Computed from mid-ranks (Hanley and McNeil, *Radiology* 143, 1982).

    Args:
        labels: shape (rows,), 0 or 1.
        scores: shape (rows,).

    Returns:
        Between 0 and 1, or None where all labels are alike.
    """
    truth, values = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return None
    rank_sum = float(midranks(values)[truth].sum())
    return (rank_sum - positive * (positive + 1) / 2) / (positive * negative)


def midranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks from 1, shape (rows,); equal values share the mean of their ranks."""
    _, positions, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[positions])
