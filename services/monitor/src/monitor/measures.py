"""Everything that is measured on one window of one model version, as checks with threshold and verdict."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from esteira.exceptions import NotEnoughData
from esteira.pipeline import Monitoring, Retraining
from esteira.profile import Binning, Profile
from esteira.redaction import NOTHING, ColumnRule, Redaction
from monitor.drift import population_stability_index
from monitor.performance import (
    Array,
    Estimate,
    area_under_roc_curve,
    brier_score,
    expected_calibration_error,
    log_loss,
    mean_absolute_error,
    mean_bias,
    observed_to_expected,
    r_squared,
    relative_bias,
    root_mean_squared_error,
)

Verdict = Literal["ok", "warning", "alarm", "insufficient"]
Counts = npt.NDArray[np.int64]
FeatureCounts = Mapping[int, Counts]
"""Live counts for each feature's position; -1 is the score."""

SCORE = -1
MAIN_METRIC = {"classification": "auc", "regression": "r2"}
RELEASED_METRIC = {"auc": "roc_auc", "r2": "r2"}
"""The name that the main metric has among a release's metrics."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of a window."""

    name: str
    subject: str = ""
    """The feature that it is measured on, or empty."""
    value: float | None = None
    threshold: float | None = None
    verdict: Verdict = "ok"
    details: dict[str, Any] = {}


class Labelled(msgspec.Struct, frozen=True):
    """Predictions whose outcome is known."""

    labels: Array
    scores: Array

    def __len__(self) -> int:
        return len(self.labels)


def measure_drift(
    profile: Profile, counts: FeatureCounts, monitoring: Monitoring, redaction: Redaction = NOTHING
) -> list[Check]:
    """PSI of each feature (`psi`), of the score (`score_psi`), and the greatest of the features (`max_psi`).

    A feature that is not logged is not measured, and its check says so; of one that is logged for a share of
    predictions, that share is.
    """
    features = [
        _feature_drift(binning, counts.get(position), monitoring, redaction.features.get(binning.name))
        for position, binning in enumerate(profile.features)
    ]
    score = _drift("score_psi", "", profile.score, counts.get(SCORE), monitoring)
    return [*features, score, _greatest(features, monitoring)]


def _feature_drift(binning: Binning, current: Counts | None, monitoring: Monitoring, rule: ColumnRule | None) -> Check:
    if rule is not None and rule.log != "sampled":
        details = {"withheld": rule.log, "reason": f"not logged in clear (prediction_log.columns: {rule.log})"}
        return Check(name="psi", subject=binning.name, verdict="insufficient", details=details)
    found = _drift("psi", binning.name, binning, current, monitoring)
    if rule is None:
        return found
    return msgspec.structs.replace(found, details={**found.details, "logged_share": rule.sample})


def _drift(name: str, subject: str, reference: Binning, current: Counts | None, monitoring: Monitoring) -> Check:
    found = _padded(current, reference.bins)
    try:
        value = population_stability_index(reference.counts, found)
    except NotEnoughData as error:
        return Check(name=name, subject=subject, verdict="insufficient", details={"reason": str(error)})
    details = {"most_moved": _most_moved(reference, found)}
    verdict = _drift_verdict(value, monitoring)
    return Check(
        name=name, subject=subject, value=value, threshold=monitoring.psi_alarm, verdict=verdict, details=details
    )


def _padded(current: Counts | None, bins: int) -> Counts:
    found = np.zeros(bins, dtype=np.int64)
    if current is not None:
        found[: len(current)] = current
    return found


def _most_moved(reference: Binning, current: Counts) -> dict[str, Any]:
    """The bin whose share changed most: what a person wants to know of a drift."""
    before, now = np.asarray(reference.counts) / max(sum(reference.counts), 1), current / max(current.sum(), 1)
    index = int(np.argmax(np.abs(now - before)))
    return {"bin": reference.label(index), "before": round(float(before[index]), 4), "now": round(float(now[index]), 4)}


def _drift_verdict(value: float, monitoring: Monitoring) -> Verdict:
    if value >= monitoring.psi_alarm:
        return "alarm"
    return "warning" if value >= monitoring.psi_warning else "ok"


def _greatest(features: list[Check], monitoring: Monitoring) -> Check:
    measured = [check for check in features if check.value is not None]
    if not measured:
        return Check(name="max_psi", verdict="insufficient")
    greatest = max(measured, key=lambda check: check.value or 0.0)
    return Check(
        name="max_psi",
        value=greatest.value,
        threshold=monitoring.psi_alarm,
        verdict=greatest.verdict,
        details={"feature": greatest.subject},
    )


def measure_performance(
    task: str, labelled: Labelled, released: Mapping[str, float], monitoring: Monitoring, retraining: Retraining
) -> list[Check]:
    """All figures that labels allow, for `classification` or `regression`.

    Args:
        released: the release's metrics on its holdout; the main metric is compared with it.
    """
    if not len(labelled):
        return []
    measure = _classification if task == "classification" else _regression
    checks = [
        *measure(labelled, monitoring.confidence),
        _estimated("score_bias", relative_bias, labelled, monitoring.confidence),
    ]
    if len(labelled) < monitoring.min_outcomes:
        return [msgspec.structs.replace(check, verdict="insufficient") for check in checks]
    return [_judged(check, released, retraining) for check in checks]


def _classification(rows: Labelled, confidence: float) -> list[Check]:
    return [
        _estimated("auc", area_under_roc_curve, rows, confidence),
        Check(name="log_loss", value=log_loss(rows.labels, rows.scores)),
        Check(name="brier", value=brier_score(rows.labels, rows.scores)),
        _estimated("calibration", observed_to_expected, rows, confidence),
        Check(name="calibration_error", value=expected_calibration_error(rows.labels, rows.scores)),
        Check(name="base_rate", value=float(rows.labels.mean())),
    ]


def _regression(rows: Labelled, confidence: float) -> list[Check]:
    return [
        _estimated("r2", r_squared, rows, confidence),
        Check(name="mae", value=mean_absolute_error(rows.labels, rows.scores)),
        Check(name="rmse", value=root_mean_squared_error(rows.labels, rows.scores)),
        _estimated("bias", mean_bias, rows, confidence),
        _estimated("calibration", observed_to_expected, rows, confidence),
    ]


def _estimated(
    name: str, measure: Callable[[Array, Array, float], Estimate], rows: Labelled, confidence: float
) -> Check:
    try:
        found = measure(rows.labels, rows.scores, confidence)
    except NotEnoughData as error:
        return Check(name=name, verdict="insufficient", details={"reason": str(error)})
    return Check(name=name, value=found.value, details={"low": found.low, "high": found.high})


def _judged(check: Check, released: Mapping[str, float], retraining: Retraining) -> Check:
    """An alarm is what the whole interval says, a warning what the estimate alone says."""
    if check.value is None:
        return check
    reference = released.get(RELEASED_METRIC.get(check.name, ""))
    if reference is not None:
        lowest = reference - retraining.max_performance_loss
        verdict = _beyond(lowest - check.details["high"], lowest - check.value)
        details = {**check.details, "released": reference}
        return msgspec.structs.replace(check, threshold=lowest, verdict=verdict, details=details)
    if check.name == "score_bias":
        most = retraining.max_calibration_bias
        nearest = max(check.details["low"], -check.details["high"])
        return msgspec.structs.replace(check, threshold=most, verdict=_beyond(nearest - most, abs(check.value) - most))
    return check


def _beyond(surely: float, perhaps: float) -> Verdict:
    if surely > 0:
        return "alarm"
    return "warning" if perhaps > 0 else "ok"
