"""How well scores fit labels, on rows that no model was fitted on."""

from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from esteira.exceptions import NotEnoughData
from esteira.metrics import midranks
from esteira.scoring import Array

Task = Literal["classification", "regression"]

MAIN_METRIC: Final[dict[Task, str]] = {"classification": "roc_auc", "regression": "r2"}
CALIBRATION_BINS: Final = 10
_EPSILON: Final = 1e-15


def evaluate(task: Task, label: Array, score: Array) -> dict[str, float]:
    """Measures all metrics of the task.

    Args:
        label: 0 or 1 for classification, else the true values; shape (rows,).
        score: the probability of 1, or the predicted values; shape (rows,).

    Raises:
        NotEnoughData: there are no rows, or labels of one kind only.
    """
    _require_contrast(task, label)
    return _classification(label, score) if task == "classification" else _regression(label, score)


def _require_contrast(task: Task, label: Array) -> None:
    if not has_contrast(label):
        what = "both classes" if task == "classification" else "labels that differ"
        raise NotEnoughData(f"{len(label)} held-out rows do not hold {what}; train on more rows or hold out more")


def has_contrast(label: Array) -> bool:
    """Whether there is anything to tell apart."""
    return len(label) > 1 and bool((label != label[0]).any())


def _classification(label: Array, score: Array) -> dict[str, float]:
    return {
        "roc_auc": roc_auc(label, score),
        "log_loss": log_loss(label, score),
        "brier": float(np.mean((score - label) ** 2)),
        "ece": expected_calibration_error(label, score),
        "base_rate": float(label.mean()),
        "mean_score": float(score.mean()),
    }


def _regression(label: Array, score: Array) -> dict[str, float]:
    error = score - label
    return {
        "r2": r2(label, score),
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mean_label": float(label.mean()),
        "mean_score": float(score.mean()),
    }


def main_metric(task: Task, label: Array, score: Array) -> float:
    """The one metric by which models are compared; greater is better."""
    return roc_auc(label, score) if task == "classification" else r2(label, score)


def roc_auc(label: Array, score: Array) -> float:
    """The chance that a positive row scores above a negative one; ties count one half (Mann-Whitney)."""
    positive = label > 0.5
    m, n = int(positive.sum()), int((~positive).sum())
    rank_sum = float(midranks(score)[positive].sum())
    return (rank_sum - m * (m + 1) / 2) / (m * n)


def log_loss(label: Array, score: Array) -> float:
    """Mean negative log-likelihood, in nats; probabilities are kept `_EPSILON` away from 0 and 1."""
    clipped = np.clip(score, _EPSILON, 1 - _EPSILON)
    return float(-np.mean(np.where(label > 0.5, np.log(clipped), np.log1p(-clipped))))


def expected_calibration_error(label: Array, score: Array, bins: int = CALIBRATION_BINS) -> float:
    """Mean distance of observed share and mean score over bins of equal size, weighted by their rows.

    Bins hold equally many rows rather than equally wide ranges: scores of rare events crowd near 0 (Nixon et al.,
    *Measuring Calibration in Deep Learning*, 2019).
    """
    _, observed, predicted, counts = calibration_curve(label, score, bins)
    return float(np.sum(counts * np.abs(observed - predicted)) / len(label))


def calibration_curve(
    label: Array, score: Array, bins: int = CALIBRATION_BINS
) -> tuple[Array, Array, Array, npt.NDArray[np.int64]]:
    """Groups rows by score; gives for each bin its upper edge, observed share, mean score and rows.

    Rows of equal score are never divided between bins.
    """
    edges = np.unique(np.quantile(score, np.linspace(0, 1, bins + 1)[1:]))
    index = np.searchsorted(edges, score, side="left").clip(max=len(edges) - 1)
    counts = np.bincount(index, minlength=len(edges))
    filled = counts > 0
    rows = np.maximum(counts, 1)
    observed = np.bincount(index, weights=label, minlength=len(edges)) / rows
    predicted = np.bincount(index, weights=score, minlength=len(edges)) / rows
    return edges[filled], observed[filled], predicted[filled], counts[filled]


def r2(label: Array, score: Array) -> float:
    """The share of variance explained; 0 is no better than the mean."""
    spread = float(np.sum((label - label.mean()) ** 2))
    return 1.0 - float(np.sum((label - score) ** 2)) / spread
