"""What a canary or a shadow shows of its two arms, and what follows from it. Pure: figures in, verdict out."""

import math
from typing import Literal

import msgspec
import numpy as np

from esteira.exceptions import NotEnoughData
from esteira.pipeline import Canary, LoadedPipeline
from monitor.drift import population_stability_index
from monitor.measures import MAIN_METRIC, Labelled
from monitor.performance import (
    Array,
    Estimate,
    area_difference,
    area_under_roc_curve,
    critical_value,
    log_loss,
    r_squared,
    r_squared_difference,
    root_mean_squared_error,
)

Verdict = Literal["waiting", "promote", "rollback"]
BINS = 10
ROWS_PER_BIN = 20
NOTICEABLE_MICROSECONDS = 1000.0
"""Of a row; below it nobody waits, however many times the champion's time it is."""


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """What one release answered since the canary began, to requests that name an entity; or what it made of the rows
    that a shadow scored."""

    version: str
    scores: Array
    labelled: Labelled
    failures: int = 0
    microseconds: float | None = None
    """Mean time for a row; None where none was told."""

    @property
    def failed(self) -> float:
        """The share of its rows that it failed to answer."""
        rows = len(self.scores) + self.failures
        return self.failures / rows if rows else 0.0


class ArmFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of an arm, as they are shown."""

    version: str
    predictions: int
    labelled: int
    failures: int
    microseconds: float | None
    mean_score: float | None
    performance: Estimate | None
    """AUC or R²."""
    loss: float | None
    """Log loss; of a regression the root mean squared error."""


class CanaryReport(msgspec.Struct, frozen=True, kw_only=True):
    """A canary's figures, and what follows from them."""

    verdict: Verdict
    reasons: list[str]
    minutes: float
    metric: str
    champion: ArmFigures
    challenger: ArmFigures
    difference: Estimate | None
    """Of performance, challenger minus champion; None below `monitoring.min_outcomes` in either arm."""
    score_psi: float | None
    """Between the arms' scores, without what chance alone adds; None below `ROWS_PER_BIN` rows in two bins."""
    thresholds: dict[str, float]


def judge_canary(pipeline: LoadedPipeline, champion: Arm, challenger: Arm, minutes: float) -> CanaryReport:
    """Compares the arms.

    Args:
        pipeline: says what is enough, and what is too much.
        champion: what it answered.
        challenger: what it answered.
        minutes: since the canary began.
    """
    difference = _difference(pipeline, champion, challenger)
    return _judge(pipeline, champion, challenger, minutes, difference, score_shift(champion.scores, challenger.scores))


def judge_shadow(pipeline: LoadedPipeline, champion: Arm, challenger: Arm, minutes: float) -> CanaryReport:
    """Compares the arms as `judge_canary` does, but on the same rows, in the same order: so much less is chance."""
    difference = _paired_difference(pipeline, champion, challenger)
    psi = score_shift(champion.scores, challenger.scores, paired=True)
    return _judge(pipeline, champion, challenger, minutes, difference, psi)


def _judge(
    pipeline: LoadedPipeline,
    champion: Arm,
    challenger: Arm,
    minutes: float,
    difference: Estimate | None,
    psi: float | None,
) -> CanaryReport:
    verdict, reasons = _conclude(pipeline, champion, challenger, minutes, difference, psi)
    return CanaryReport(
        verdict=verdict,
        reasons=reasons,
        minutes=round(minutes, 2),
        metric=MAIN_METRIC[pipeline.spec.task],
        champion=_figures(pipeline, champion),
        challenger=_figures(pipeline, challenger),
        difference=difference,
        score_psi=psi,
        thresholds=_thresholds(pipeline),
    )


def _conclude(
    pipeline: LoadedPipeline,
    champion: Arm,
    challenger: Arm,
    minutes: float,
    difference: Estimate | None,
    psi: float | None,
) -> tuple[Verdict, list[str]]:
    spec = pipeline.spec.canary
    if found := _failing(challenger, spec, pipeline.spec.monitoring.confidence):
        return "rollback", [found]
    fewest = min((len(champion.scores), "champion"), (len(challenger.scores), "challenger"))
    if fewest[0] < spec.min_predictions:
        so_far = f"{fewest[0]:,} of {spec.min_predictions:,} predictions of the {fewest[1]}"
        if minutes < spec.max_minutes:
            return "waiting", [f"{so_far}, {minutes:.0f} of {spec.max_minutes} minutes"]
        return "rollback", [f"not enough evidence after {spec.max_minutes} minutes: {so_far}"]
    against = [
        *_slow(champion, challenger, spec),
        *_worse(difference, pipeline.spec.gates.max_loss_to_champion),
        *([] if difference else _shifted(psi, spec)),
    ]
    return ("rollback", against) if against else ("promote", _in_favour(champion, challenger, difference, psi))


def _failing(challenger: Arm, spec: Canary, confidence: float) -> str | None:
    """Failures beyond chance: the lower bound of their share (Wilson, 1927) lies above what is allowed."""
    rows = len(challenger.scores) + challenger.failures
    if not challenger.failures or _wilson_low(challenger.failures, rows, confidence) <= spec.max_failures:
        return None
    return f"the challenger failed to answer {challenger.failures:,} of {rows:,} rows, {spec.max_failures:.1%} may fail"


def _wilson_low(failures: int, rows: int, confidence: float) -> float:
    z, share = critical_value(confidence), failures / rows
    centre = share + z * z / (2 * rows)
    reach = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return (centre - reach) / (1 + z * z / rows)


def _slow(champion: Arm, challenger: Arm, spec: Canary) -> list[str]:
    before, now = champion.microseconds, challenger.microseconds
    if before is None or now is None or now <= NOTICEABLE_MICROSECONDS or now <= spec.max_slowdown * before:
        return []
    return [f"a row takes {now:,.0f} µs, {now / max(before, 1):.1f} times the champion's {before:,.0f} µs"]


def _worse(difference: Estimate | None, most: float) -> list[str]:
    if difference is None or difference.high >= -most:
        return []
    interval = f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
    return [f"performance on live requests differs by {interval}, {-most:+.4f} is allowed"]


def _shifted(psi: float | None, spec: Canary) -> list[str]:
    if psi is None or psi <= spec.max_score_psi:
        return []
    shift = f"scores are apart by a PSI of {psi:.3f}, {spec.max_score_psi:g} is allowed"
    return [f"{shift} while outcomes are too few to tell which arm is right"]


def _in_favour(champion: Arm, challenger: Arm, difference: Estimate | None, psi: float | None) -> list[str]:
    found = [f"{len(challenger.scores):,} predictions of the challenger, {len(champion.scores):,} of the champion"]
    if psi is not None:
        found.append(f"score PSI {psi:.3f}")
    if difference is None:
        return [*found, "too few outcomes to compare performance"]
    interval = f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
    return [*found, f"performance differs by {interval}"]


def score_shift(champion: Array, challenger: Array, *, paired: bool = False) -> float | None:
    """Population stability index between the arms' scores, less its expectation where nothing differs.

    The bins are quantiles of both arms together, so many that the smaller arm has `ROWS_PER_BIN` rows for each; the
    expectation is (bins - 1) * (1/n + 1/m) (Yurdakul and Naranjo, 2020). Never below 0. Of scores of the same rows
    (`paired`) nothing is taken off: chance chose the rows of both arms alike.
    """
    smaller = min(len(champion), len(challenger))
    bins = min(BINS, smaller // ROWS_PER_BIN)
    if bins < 2:
        return None
    edges = np.unique(np.quantile(np.concatenate([champion, challenger]), np.arange(1, bins) / bins))
    counts = [
        np.bincount(np.searchsorted(edges, side, side="right"), minlength=len(edges) + 1)
        for side in (champion, challenger)
    ]
    by_chance = 0 if paired else len(edges) * (1 / len(champion) + 1 / len(challenger))
    return max(0.0, population_stability_index(counts[0], counts[1]) - by_chance)


def _difference(pipeline: LoadedPipeline, champion: Arm, challenger: Arm) -> Estimate | None:
    """Challenger minus champion, on different rows: the interval of a difference of two (Zou and Donner, 2008)."""
    if min(len(champion.labelled), len(challenger.labelled)) < pipeline.spec.monitoring.min_outcomes:
        return None
    theirs, mine = _performance(pipeline, champion.labelled), _performance(pipeline, challenger.labelled)
    if theirs is None or mine is None:
        return None
    value = mine.value - theirs.value
    low = value - math.hypot(mine.value - mine.low, theirs.high - theirs.value)
    high = value + math.hypot(mine.high - mine.value, theirs.value - theirs.low)
    return Estimate(value, low, high)


def _paired_difference(pipeline: LoadedPipeline, champion: Arm, challenger: Arm) -> Estimate | None:
    if len(challenger.labelled) < pipeline.spec.monitoring.min_outcomes:
        return None
    measure = area_difference if pipeline.spec.task == "classification" else r_squared_difference
    labels, before, now = challenger.labelled.labels, champion.labelled.scores, challenger.labelled.scores
    try:
        return measure(labels, before, now, pipeline.spec.monitoring.confidence)
    except NotEnoughData:
        return None


def _performance(pipeline: LoadedPipeline, rows: Labelled) -> Estimate | None:
    measure = area_under_roc_curve if pipeline.spec.task == "classification" else r_squared
    try:
        return measure(rows.labels, rows.scores, pipeline.spec.monitoring.confidence)
    except NotEnoughData:
        return None


def _figures(pipeline: LoadedPipeline, arm: Arm) -> ArmFigures:
    loss = log_loss if pipeline.spec.task == "classification" else root_mean_squared_error
    return ArmFigures(
        version=arm.version,
        predictions=len(arm.scores),
        labelled=len(arm.labelled),
        failures=arm.failures,
        microseconds=arm.microseconds,
        mean_score=float(arm.scores.mean()) if len(arm.scores) else None,
        performance=_performance(pipeline, arm.labelled),
        loss=loss(arm.labelled.labels, arm.labelled.scores) if len(arm.labelled) else None,
    )


def _thresholds(pipeline: LoadedPipeline) -> dict[str, float]:
    spec = pipeline.spec
    return {
        "min_predictions": spec.canary.min_predictions,
        "max_minutes": spec.canary.max_minutes,
        "max_failures": spec.canary.max_failures,
        "max_slowdown": spec.canary.max_slowdown,
        "max_score_psi": spec.canary.max_score_psi,
        "min_outcomes": spec.monitoring.min_outcomes,
        "max_loss_to_champion": spec.gates.max_loss_to_champion,
    }
