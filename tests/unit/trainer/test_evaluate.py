import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from esteira.exceptions import NotEnoughData
from trainer.evaluate import calibration_curve, evaluate, expected_calibration_error


def rows(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    score = np.round(random.random(count), 2)
    return (random.random(count) < score).astype(float), score


def test_classification_agrees_with_scikit_learn_among_ties() -> None:
    label, score = rows(5000)
    found = evaluate("classification", label, score)
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(label, score), abs=1e-12)
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(label, score), abs=1e-12)
    assert found["log_loss"] == pytest.approx(metrics.log_loss(label, np.clip(score, 1e-15, 1 - 1e-15)), rel=1e-9)
    assert found["base_rate"] == label.mean()


def test_regression_agrees_with_scikit_learn() -> None:
    random = np.random.default_rng(1)
    label = random.normal(size=1000)
    score = label + random.normal(size=1000)
    found = evaluate("regression", label, score)
    assert found["r2"] == pytest.approx(metrics.r2_score(label, score))
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(label, score))
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(label, score))


def test_labels_of_one_kind_are_refused() -> None:
    with pytest.raises(NotEnoughData, match="both classes"):
        evaluate("classification", np.ones(10), np.linspace(0, 1, 10))


def test_true_probabilities_have_a_small_calibration_error_and_shifted_ones_a_large_one() -> None:
    label, score = rows(50_000)
    assert expected_calibration_error(label, score) < 0.02
    assert expected_calibration_error(label, np.clip(score + 0.2, 0, 1)) > 0.15


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_calibration_bins_hold_every_row_once(scores: list[float]) -> None:
    score = np.array(scores)
    edges, observed, predicted, counts = calibration_curve(np.ones(len(score)), score)
    assert counts.sum() == len(score)
    assert (observed == 1).all()
    assert (predicted <= edges + 1e-12).all()
