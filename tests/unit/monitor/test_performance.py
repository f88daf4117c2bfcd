from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from monitor import performance
from monitor.performance import Array, Estimate, UndefinedMeasure

Rows = tuple[Array, Array]


@st.composite
def classified(draw: st.DrawFn) -> Rows:
    """Few distinct scores, so that there are ties; two rows of each class."""
    seed, rows, levels = draw(st.integers(0, 2**32 - 1)), draw(st.integers(4, 200)), draw(st.integers(1, 50))
    random = np.random.default_rng(seed)
    labels = np.concatenate([[0.0, 0.0, 1.0, 1.0], random.integers(0, 2, rows - 4).astype(float)])
    return labels, (random.integers(0, levels + 1, rows) / levels).astype(float)


@st.composite
def measured(draw: st.DrawFn) -> Rows:
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = random.normal(5, 2, draw(st.integers(3, 200)))
    return labels, labels + random.normal(0.3, 1, len(labels))


@given(classified())
@settings(deadline=None)
def test_auc_is_scikit_learns(rows: Rows) -> None:
    found = performance.area_under_roc_curve(*rows)
    assert found.value == pytest.approx(metrics.roc_auc_score(*rows))
    assert found.low <= found.value <= found.high


@given(classified(), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_a_difference_of_areas_is_that_of_the_two_and_none_of_a_score_to_itself(rows: Rows, seed: int) -> None:
    labels, before = rows
    now = np.random.default_rng(seed).permutation(before)
    found = performance.area_difference(labels, before, now)
    assert found.value == pytest.approx(metrics.roc_auc_score(labels, now) - metrics.roc_auc_score(labels, before))
    assert performance.area_difference(labels, before, before) == Estimate(0.0, 0.0, 0.0)


@given(measured(), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_a_difference_of_r2_is_that_of_the_two_and_none_of_a_score_to_itself(rows: Rows, seed: int) -> None:
    labels, before = rows
    now = before + np.random.default_rng(seed).normal(0, 1, len(before))
    found = performance.r_squared_difference(labels, before, now)
    assert found.value == pytest.approx(metrics.r2_score(labels, now) - metrics.r2_score(labels, before))
    assert performance.r_squared_difference(labels, before, before) == Estimate(0.0, 0.0, 0.0)


@pytest.mark.parametrize("measure", ["area_difference", "r_squared_difference"])
def test_the_interval_of_a_difference_on_the_same_rows_covers_what_is_true_as_often_as_it_says(measure: str) -> None:
    """Two scores of the same strength, so that the true difference is 0; they share most of their noise."""
    random, covered, narrower = np.random.default_rng(5), 0, 0
    compare = getattr(performance, measure)
    for _ in range(400):
        truth, shared = random.normal(size=300), random.normal(size=300)
        labels = (truth > 0).astype(float) if measure == "area_difference" else truth
        before, now = (truth + shared + random.normal(0, 0.3, 300) for _ in range(2))
        found = compare(labels, before, now, 0.95)
        covered += found.low <= 0 <= found.high
        alone = performance.area_under_roc_curve(labels, before)
        narrower += found.high - found.low < alone.high - alone.low
    assert 370 <= covered <= 392  # 380 expected, four standard errors are 17; somewhat fewer in small samples
    if measure == "area_difference":
        assert narrower == 400


@given(classified())
@settings(deadline=None)
def test_log_loss_and_brier_score_are_scikit_learns(rows: Rows) -> None:
    labels, scores = rows[0], np.clip(rows[1], 0.01, 0.99)
    assert performance.log_loss(labels, scores) == pytest.approx(metrics.log_loss(labels, scores))
    assert performance.brier_score(labels, scores) == pytest.approx(metrics.brier_score_loss(labels, scores))


@given(measured())
@settings(deadline=None)
def test_figures_of_regression_are_scikit_learns(rows: Rows) -> None:
    assert performance.r_squared(*rows).value == pytest.approx(metrics.r2_score(*rows))
    assert performance.mean_absolute_error(*rows) == pytest.approx(metrics.mean_absolute_error(*rows))
    assert performance.root_mean_squared_error(*rows) == pytest.approx(metrics.root_mean_squared_error(*rows))
    assert performance.mean_bias(*rows).value == pytest.approx(np.mean(rows[1] - rows[0]))


def test_the_standard_error_of_auc_is_delongs() -> None:
    """Structural components by their definition, pair by pair."""
    random = np.random.default_rng(3)
    labels = (random.random(80) < 0.4).astype(float)
    scores = np.round(random.random(80) * 0.5 + labels * 0.2, 1)
    wins = np.sign(scores[labels == 1][:, None] - scores[labels == 0][None, :]) / 2 + 0.5
    variance = wins.mean(1).var(ddof=1) / len(wins) + wins.mean(0).var(ddof=1) / wins.shape[1]
    found = performance.area_under_roc_curve(labels, scores, 0.95)
    assert found.high - found.value == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-6)


def _classes(random: np.random.Generator) -> Rows:
    scores = random.beta(2, 4, 400)
    return (random.random(400) < scores).astype(float), scores


def _numbers(random: np.random.Generator) -> Rows:
    labels = random.normal(10, 2, 400)
    return labels, labels + random.normal(0, 1, 400)


COVERED: list[tuple[Callable[[Array, Array, float], Estimate], Callable[[np.random.Generator], Rows], float]] = [
    (performance.observed_to_expected, _classes, 1.0),
    (performance.relative_bias, _classes, 0.0),
    (performance.mean_bias, _numbers, 0.0),
    (performance.r_squared, _numbers, 0.75),
]


@pytest.mark.parametrize(("measure", "draw", "truth"), COVERED)
def test_intervals_cover_the_truth_as_often_as_they_say(
    measure: Callable[[Array, Array, float], Estimate],
    draw: Callable[[np.random.Generator], Rows],
    truth: float,
) -> None:
    random = np.random.default_rng(11)
    found = [measure(*draw(random), 0.9) for _ in range(600)]
    assert np.mean([row.low <= truth <= row.high for row in found]) == pytest.approx(0.9, abs=0.04)


def test_calibration_error_is_the_weighted_gap_of_the_bins() -> None:
    labels, scores = np.array([0.0, 1.0, 1.0, 1.0]), np.array([0.12, 0.18, 0.9, 1.0])
    assert performance.expected_calibration_error(labels, scores) == pytest.approx((0.35 * 2 + 0.05 * 2) / 4)


@pytest.mark.parametrize(
    ("measure", "labels"),
    [
        (performance.area_under_roc_curve, [1.0, 1.0, 1.0]),
        (performance.area_under_roc_curve, [0.0, 0.0, 1.0]),
        (performance.r_squared, [2.0, 2.0]),
        (performance.relative_bias, [0.0, 0.0]),
        (performance.mean_bias, [1.0]),
        (performance.log_loss, []),
    ],
)
def test_what_labels_do_not_define_is_told(measure: Callable[[Array, Array], object], labels: list[float]) -> None:
    with pytest.raises(UndefinedMeasure):
        measure(np.array(labels), np.linspace(0.1, 0.9, len(labels)))
