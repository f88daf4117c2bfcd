"""Whether the evidence of a window asks for a new model, and why.

Two questions, each answered with figures. *Is the champion worse than it was released as?* Only an interval that lies
wholly beyond the tolerance says so: the point estimate of a window wanders by chance. *Would training now help?* Only
with labelled rows that the champion was not trained on, and while no training on the same data is under way or done.
"""

from typing import Any, Literal

import msgspec

from esteira.pipeline import Monitoring, Retraining
from monitor.performance import Estimate

Verdict = Literal["requested", "not-needed", "not-yet", "insufficient"]

TITLES = {"auc": "AUC", "r2": "R²"}
UNFINISHED = ("requested", "running")


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What one window shows of the champion."""

    metric: str
    """The main metric, `auc` or `r2`."""
    labelled: int
    performance: Estimate | None
    """The main metric of the window; None where labels do not define it."""
    released: float | None
    """The main metric on the holdout that the champion was released with."""
    score_bias: Estimate | None
    """How far the mean score is off the mean label, relative to it."""


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainer could do now, and does already."""

    dataset_number: int
    """The newest dataset version."""
    dataset_rows: int
    """Its labelled rows."""
    champion_dataset_rows: int
    """The labelled rows of the dataset version that the champion was trained on."""
    run_number: int | None = None
    """The newest training run that is unfinished, or was on the newest dataset version and not promoted."""
    run_status: str | None = None
    run_reason: str | None = None
    requested_for: int | None = None
    """The newest dataset version for which this champion's windows asked for retraining before."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What is done, and the one sentence that says why."""

    decision: Verdict
    reason: str
    evidence: dict[str, Any] = {}
    waits_for: int | None = None
    """The number of an unfinished training run, after which the window is judged again."""


def decide(evidence: Evidence, training: Training, monitoring: Monitoring, retraining: Retraining) -> Decision:
    """Decides on one window of the champion."""
    figures = _figures(evidence, training)
    lacking = _lacking(evidence, monitoring)
    if lacking:
        return Decision(decision="insufficient", reason=lacking, evidence=figures)
    worse = [found for found in (_performance_loss(evidence, retraining), _bias(evidence, retraining)) if found]
    if not worse:
        return Decision(decision="not-needed", reason=_in_order(evidence, retraining), evidence=figures)
    obstacle = _obstacle(training, retraining)
    if not obstacle:
        return Decision(decision="requested", reason=" and ".join(worse), evidence=figures)
    waits_for = training.run_number if training.run_status in UNFINISHED else None
    reason = f"{' and '.join(worse)}, but {obstacle}"
    return Decision(decision="not-yet", reason=reason, evidence=figures, waits_for=waits_for)


def describe(metric: str, estimate: Estimate) -> str:
    """The estimate as people read it: `AUC 0.702 (0.680 to 0.724)`."""
    return f"{TITLES[metric]} {estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _lacking(evidence: Evidence, monitoring: Monitoring) -> str:
    """Why the window cannot be judged, or an empty string."""
    title = TITLES[evidence.metric]
    if evidence.labelled < monitoring.min_outcomes:
        return f"{evidence.labelled:,} predictions have their outcome, {monitoring.min_outcomes:,} are needed to judge"
    if evidence.performance is None:
        return f"{evidence.labelled:,} outcomes are all alike, so that they define no {title}"
    if evidence.released is None:
        return f"the champion was released without {title}, so that there is nothing to compare with"
    return ""


def _performance_loss(evidence: Evidence, retraining: Retraining) -> str:
    """The loss that the whole interval shows, or an empty string."""
    if evidence.performance is None or evidence.released is None:
        return ""
    lowest = evidence.released - retraining.max_performance_loss
    if evidence.performance.high >= lowest:
        return ""
    return f"{describe(evidence.metric, evidence.performance)} lies below {_allowed(evidence.released, retraining)}"


def _bias(evidence: Evidence, retraining: Retraining) -> str:
    """The bias that the whole interval shows, or an empty string: retraining moves scores to where labels are now."""
    bias = evidence.score_bias
    if bias is None or max(bias.low, -bias.high) <= retraining.max_calibration_bias:
        return ""
    allowed = f"{retraining.max_calibration_bias:.0%}"
    return f"scores are {_described_bias(bias)} what was observed, beyond the allowed {allowed}"


def _in_order(evidence: Evidence, retraining: Retraining) -> str:
    """What was looked at and found in order."""
    if evidence.performance is None or evidence.released is None:
        return ""
    told = describe(evidence.metric, evidence.performance)
    lost = evidence.released - evidence.performance.value
    if lost <= 0:
        found = f"{told} is no worse than the {evidence.released:.3f} it was released with"
    elif lost <= retraining.max_performance_loss:
        allowed = f"{retraining.max_performance_loss:g}"
        found = f"{told} is within {allowed} of the {evidence.released:.3f} it was released with"
    else:
        found = f"{told} still reaches {_allowed(evidence.released, retraining)}, so the loss may be chance"
    if evidence.score_bias is None:
        return found
    return f"{found}; scores are {_described_bias(evidence.score_bias)} what was observed"


def _allowed(released: float, retraining: Retraining) -> str:
    lowest = released - retraining.max_performance_loss
    return (
        f"{lowest:.3f}, the allowed {retraining.max_performance_loss:g} under the {released:.3f} it was released with"
    )


def _described_bias(bias: Estimate) -> str:
    side = "above" if bias.value >= 0 else "below"
    return f"{abs(bias.value):.0%} ({bias.low:+.0%} to {bias.high:+.0%}) {side}"


def _obstacle(training: Training, retraining: Retraining) -> str:
    """Why training now would not help, or an empty string."""
    if not retraining.automatic:
        return "retraining is not automatic for this pipeline"
    if training.run_status in UNFINISHED:
        return f"training run {training.run_number} is not finished"
    if training.run_status is not None:
        why = f" ({training.run_reason})" if training.run_reason else ""
        return f"training run {training.run_number} on the same data ended as {training.run_status}{why}"
    gained = training.dataset_rows - training.champion_dataset_rows
    needed = max(round(retraining.min_new_rows * training.champion_dataset_rows), 1)
    if gained < needed:
        return f"{gained:,} labelled rows are new since the champion was trained, {needed:,} are needed"
    if training.requested_for is not None and training.requested_for >= training.dataset_number:
        return "training on the newest data was requested already"
    return ""


def _figures(evidence: Evidence, training: Training) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(evidence)
    rows = {"dataset_rows": training.dataset_rows, "champion_dataset_rows": training.champion_dataset_rows}
    return {**found, "dataset_number": training.dataset_number, **rows}
