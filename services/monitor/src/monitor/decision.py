"""Whether the evidence of a window asks for a new model, and why.

Two questions, each answered with figures. *Is the champion worse than it was released as?* Only an interval that lies
wholly beyond the tolerance says so: the point estimate of a window wanders by chance. *Would training now help?* Only
with labelled rows that the champion was not trained on, and when no training on the same data is under way or done.
"""

from typing import Any, Literal

import msgspec

from esteira.pipeline import Monitoring, Retraining
from monitor.performance import Estimate

Verdict = Literal["requested", "not-needed", "not-yet", "insufficient"]

TITLES = {"auc": "AUC", "r2": "R²"}


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What one window shows of the champion."""

    metric: str
    """`auc` or `r2`."""
    labelled: int
    performance: Estimate | None
    """The main metric of the window; None where labels do not define it."""
    released: float | None
    """The main metric on the holdout that the champion was released with."""
    calibration: Estimate | None
    """Observed by expected."""


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainer could do now, and does already."""

    dataset_number: int
    """The newest dataset version."""
    dataset_rows: int
    """Its labelled rows."""
    champion_dataset_rows: int
    """The labelled rows of the dataset version that the champion was trained on."""
    run_number: int | None = None
    """The newest training run that is unfinished, or was on the newest dataset version."""
    run_status: str | None = None
    run_reason: str | None = None
    requested_for: int | None = None
    """The newest dataset version for which retraining was requested since the champion was promoted."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What is done, and the one sentence that says why."""

    decision: Verdict
    reason: str
    evidence: dict[str, Any] = {}


def decide(evidence: Evidence, training: Training, monitoring: Monitoring, retraining: Retraining) -> Decision:
    """Decides on one window of the champion."""
    figures = _figures(evidence, training)
    if evidence.labelled < monitoring.min_outcomes:
        reason = f"{evidence.labelled:,} labelled predictions, {monitoring.min_outcomes:,} are needed to judge"
        return Decision(decision="insufficient", reason=reason, evidence=figures)
    if evidence.performance is None or evidence.released is None:
        reason = f"the champion's {TITLES[evidence.metric]} cannot be compared: {_missing(evidence)}"
        return Decision(decision="insufficient", reason=reason, evidence=figures)
    worse = [*_performance_loss(evidence, retraining), *_miscalibration(evidence, retraining)]
    if not worse:
        return Decision(decision="not-needed", reason=_in_order(evidence, retraining), evidence=figures)
    found = " and ".join(worse)
    obstacle = _obstacle(training, retraining)
    if obstacle:
        return Decision(decision="not-yet", reason=f"{found}, but {obstacle}", evidence=figures)
    return Decision(decision="requested", reason=found, evidence=figures)


def _performance_loss(evidence: Evidence, retraining: Retraining) -> list[str]:
    assert evidence.performance is not None  # noqa: S101
    assert evidence.released is not None  # noqa: S101
    if evidence.performance.high >= evidence.released - retraining.max_performance_loss:
        return []
    return [
        f"{describe(evidence.metric, evidence.performance)} is more than {retraining.max_performance_loss:g} "
        f"below the {evidence.released:.3f} it was released with"
    ]


def _miscalibration(evidence: Evidence, retraining: Retraining) -> list[str]:
    """Retraining moves scores to where labels are now; both sides of the tolerance count."""
    bias = score_bias(evidence.calibration)
    if bias is None or max(bias.low, -bias.high) <= retraining.max_calibration_bias:
        return []
    side = "above" if bias.value > 0 else "below"
    return [
        f"scores are {abs(bias.value):.0%} {side} what was observed ({bias.low:+.0%} to {bias.high:+.0%}, "
        f"allowed is {retraining.max_calibration_bias:.0%})"
    ]


def score_bias(calibration: Estimate | None) -> Estimate | None:
    """How far the mean score is off the mean label, relative to it, from observed by expected; None if undefined."""
    if calibration is None or calibration.low <= 0:
        return None
    return Estimate(1 / calibration.value - 1, 1 / calibration.high - 1, 1 / calibration.low - 1)


def describe(metric: str, estimate: Estimate) -> str:
    """`AUC 0.702 (0.680 to 0.724)`."""
    return f"{TITLES[metric]} {estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _obstacle(training: Training, retraining: Retraining) -> str:
    """Why training now would not help, or an empty string."""
    gained = training.dataset_rows - training.champion_dataset_rows
    needed = retraining.min_new_rows * training.champion_dataset_rows
    if not retraining.automatic:
        return "retraining is not automatic for this pipeline"
    if training.run_status in ("requested", "running"):
        return f"training run {training.run_number} is under way"
    if training.run_status is not None:
        told = f": {training.run_reason}" if training.run_reason else ""
        return f"training run {training.run_number} on the newest data ended as {training.run_status}{told}"
    if gained < max(needed, 1):
        return f"only {gained:,} labelled rows are new since the champion was trained, {max(needed, 1):,.0f} are needed"
    if training.requested_for == training.dataset_number:
        return "retraining on the newest data was requested already"
    return ""


def _in_order(evidence: Evidence, retraining: Retraining) -> str:
    assert evidence.performance is not None  # noqa: S101
    assert evidence.released is not None  # noqa: S101
    told = describe(evidence.metric, evidence.performance)
    lost = evidence.released - evidence.performance.value
    if lost <= 0:
        return f"{told} is no worse than the {evidence.released:.3f} it was released with"
    if lost <= retraining.max_performance_loss:
        return f"{told} is within {retraining.max_performance_loss:g} of the {evidence.released:.3f} it was released with"
    return f"{told} is below the {evidence.released:.3f} it was released with, but not beyond chance"


def _missing(evidence: Evidence) -> str:
    return "labels are all of one kind" if evidence.performance is None else "its release names no such figure"


def _figures(evidence: Evidence, training: Training) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(evidence)
    return {**found, "dataset_number": training.dataset_number, "dataset_rows": training.dataset_rows}
