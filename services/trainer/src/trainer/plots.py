"""Pictures of a model for people who look at its run."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from esteira.scoring import Array
from trainer.evaluate import Task, calibration_curve

POINTS = 2000
DOTS = 90


def write_plots(folder: Path, task: Task, label: Array, scores: dict[str, Array]) -> None:
    """Draws calibration and ROC, or residuals, for each model in `scores`."""
    if task == "classification":
        _save(_roc(label, scores), folder / "roc.png")
        _save(_calibration(label, scores), folder / "calibration.png")
    else:
        _save(_residuals(label, scores), folder / "residuals.png")


def _roc(label: Array, scores: dict[str, Array]) -> Figure:
    figure, axes = _figure("false positive rate", "true positive rate")
    for name, score in scores.items():
        positive = label[np.argsort(-score, kind="stable")] > 0.5
        keep = np.linspace(0, len(label) - 1, min(POINTS, len(label))).astype(int)
        true, false = np.cumsum(positive), np.cumsum(~positive)
        axes.plot(false[keep] / false[-1], true[keep] / true[-1], label=name)
    return _finished(figure, axes)


def _calibration(label: Array, scores: dict[str, Array]) -> Figure:
    figure, axes = _figure("mean score", "observed share")
    for name, score in scores.items():
        _, observed, predicted, _ = calibration_curve(label, score)
        axes.plot(predicted, observed, marker="o", label=name)
    return _finished(figure, axes)


def _residuals(label: Array, scores: dict[str, Array]) -> Figure:
    figure, axes = _figure("predicted", "true minus predicted")
    keep = np.linspace(0, len(label) - 1, min(POINTS, len(label))).astype(int)
    for name, score in scores.items():
        axes.scatter(score[keep], (label - score)[keep], s=4, alpha=0.4, label=name)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.legend()
    return figure


def _figure(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _finished(figure: Figure, axes: Axes) -> Figure:
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    axes.legend()
    return figure


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DOTS)
