"""What follows from the figures of a canary's two arms."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from esteira.pipeline import LoadedPipeline
from monitor.canary import Arm, CanaryReport, judge_canary, judge_shadow, score_shift
from monitor.measures import Labelled
from releases import write_pipeline

RANDOM = np.random.default_rng(11)


@pytest.fixture
def pipeline(tmp_path: Path) -> LoadedPipeline:
    loaded = write_pipeline(tmp_path)
    canary = msgspec.structs.replace(loaded.spec.canary, min_predictions=100, max_minutes=30)
    return msgspec.structs.replace(loaded, spec=msgspec.structs.replace(loaded.spec, canary=canary))


def arm(version: str, rows: int, labelled: int = 0, quality: float = 2.0, shift: float = 0.0, **more: float) -> Arm:
    """Scores of half positives, half negatives, `quality` standard deviations apart before squashing."""
    labels = np.arange(rows) % 2
    scores = 1 / (1 + np.exp(-(RANDOM.normal(size=rows) + quality * (labels - 0.5) + shift)))
    known = Labelled(labels[:labelled].astype(float), scores[:labelled])
    return Arm(version=version, scores=scores, labelled=known, **more)  # type: ignore[arg-type]


def judged(pipeline: LoadedPipeline, champion: Arm, challenger: Arm, minutes: float = 5) -> CanaryReport:
    return judge_canary(pipeline, champion, challenger, minutes)


def test_too_few_predictions_wait_and_are_rolled_back_in_the_end(pipeline: LoadedPipeline) -> None:
    champion, challenger = arm("1", 900), arm("2", 99)
    waiting = judged(pipeline, champion, challenger)
    assert (waiting.verdict, waiting.reasons) == (
        "waiting",
        ["99 of 100 predictions of the challenger, 5 of 30 minutes"],
    )
    late = judged(pipeline, champion, challenger, minutes=30)
    assert late.verdict == "rollback"
    assert "not enough evidence after 30 minutes" in late.reasons[0]


def test_a_champion_without_predictions_is_waited_for_too(pipeline: LoadedPipeline) -> None:
    assert judged(pipeline, arm("1", 20), arm("2", 900)).verdict == "waiting"


def test_arms_alike_are_promoted_without_outcomes(pipeline: LoadedPipeline) -> None:
    found = judged(pipeline, arm("1", 900), arm("2", 100))
    assert (found.verdict, found.difference) == ("promote", None)
    assert "too few outcomes to compare performance" in found.reasons


def test_scores_far_apart_are_rolled_back_while_nobody_knows_who_is_right(pipeline: LoadedPipeline) -> None:
    found = judged(pipeline, arm("1", 900), arm("2", 200, shift=1.5))
    assert (found.verdict, (found.score_psi or 0) > 0.25) == ("rollback", True)
    assert "PSI" in found.reasons[0]


def test_scores_far_apart_do_not_matter_where_outcomes_show_the_challenger_right(pipeline: LoadedPipeline) -> None:
    found = judged(pipeline, arm("1", 900, 900, quality=0.5), arm("2", 400, 400, quality=3, shift=1.5))
    assert found.verdict == "promote"
    assert found.difference is not None
    assert found.difference.low > 0


def test_a_challenger_that_outcomes_show_worse_is_rolled_back(pipeline: LoadedPipeline) -> None:
    found = judged(pipeline, arm("1", 900, 900), arm("2", 400, 400, quality=0.2))
    assert found.verdict == "rollback"
    assert found.difference is not None
    assert found.difference.low < found.difference.value < found.difference.high < 0
    assert found.champion.performance is not None
    assert found.champion.loss is not None


def test_failures_are_rolled_back_at_once_but_not_a_single_one_of_many(pipeline: LoadedPipeline) -> None:
    assert judged(pipeline, arm("1", 50), arm("2", 5, failures=4)).verdict == "rollback"
    assert judged(pipeline, arm("1", 900), arm("2", 400, failures=1)).verdict == "promote"


def test_a_slow_challenger_is_rolled_back_where_one_would_notice(pipeline: LoadedPipeline) -> None:
    slow = judged(pipeline, arm("1", 900, microseconds=200.0), arm("2", 400, microseconds=5000.0))
    assert (slow.verdict, "25.0 times" in slow.reasons[0]) == ("rollback", True)
    assert judged(pipeline, arm("1", 900, microseconds=10.0), arm("2", 400, microseconds=900.0)).verdict == "promote"


def shadowed(arm: Arm, noise: float, version: str = "2", gain: float = 1.0) -> Arm:
    """What another release makes of the same rows."""
    shift = RANDOM.normal(0, noise, len(arm.scores))
    scores = 1 / (1 + np.exp(-(gain * np.log(arm.scores / (1 - arm.scores)) + shift)))
    return Arm(version=version, scores=scores, labelled=Labelled(arm.labelled.labels, scores[: len(arm.labelled)]))


def test_a_shadow_on_the_same_rows_tells_what_a_canary_of_as_many_cannot(pipeline: LoadedPipeline) -> None:
    champion = arm("1", 900, 900)
    worse = shadowed(champion, noise=1.0)
    apart, paired = judged(pipeline, champion, worse), judge_shadow(pipeline, champion, worse, 5)
    assert apart.difference is not None
    assert paired.difference is not None
    assert paired.difference.value == pytest.approx(apart.difference.value)
    assert paired.difference.high - paired.difference.low < 0.8 * (apart.difference.high - apart.difference.low)
    assert paired.verdict == "rollback"


def test_a_shadow_ends_as_a_canary_does(pipeline: LoadedPipeline) -> None:
    champion = arm("1", 900)
    assert judge_shadow(pipeline, champion, shadowed(champion, 0.1), 5).verdict == "promote"
    assert judge_shadow(pipeline, champion, shadowed(champion, 0.1, gain=6), 5).verdict == "rollback"
    few = arm("1", 20)
    assert judge_shadow(pipeline, few, shadowed(few, 0.1), 5).verdict == "waiting"
    assert judge_shadow(pipeline, few, shadowed(few, 0.1), 30).verdict == "rollback"
    failing = msgspec.structs.replace(shadowed(few, 0.1), failures=12)
    assert judge_shadow(pipeline, few, failing, 5).verdict == "rollback"


def test_scores_of_the_same_rows_that_do_not_differ_have_no_shift() -> None:
    scores = RANDOM.random(400)
    assert score_shift(scores, scores, paired=True) == 0.0


def test_the_shift_of_small_samples_is_not_taken_for_one() -> None:
    """Without its correction the mean would be 9 * (1/200 + 1/1000), or 0.054."""
    shifts = [score_shift(RANDOM.random(1000), RANDOM.random(200)) or 0.0 for _ in range(200)]
    assert np.mean(shifts) < 0.02
    assert score_shift(RANDOM.random(1000), RANDOM.random(39)) is None


def test_constant_scores_have_a_shift_of_their_own() -> None:
    assert score_shift(np.full(500, 0.5), np.full(500, 0.5)) == 0.0
    assert (score_shift(np.full(500, 0.5), np.full(500, 0.9)) or 0.0) > 1
