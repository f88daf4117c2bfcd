import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from esteira.explanation import Explainer
from esteira.schema import Feature
from esteira.scoring import OnnxModel
from trainer.explaining import explain_model
from trainer.export import export_model
from trainer.fit import Matrices
from trainer.learners import build_pipeline, fit

FEATURES = [Feature("n", "numeric"), Feature("c", "categorical", list("abcd"))]


def _matrices(seed: int = 0) -> Matrices:
    generator = np.random.default_rng(seed)
    matrix = np.column_stack([generator.normal(size=900), generator.integers(0, 4, 900)]).astype(np.float64)
    label = (matrix[:, 0] + matrix[:, 1] + generator.normal(size=900) > 1.5).astype(np.float64)
    matrix[generator.random(matrix.shape) < 0.1] = np.nan
    return Matrices(FEATURES, matrix[:500], label[:500], matrix[500:], label[500:])


def _exported(estimator: object) -> OnnxModel:
    return OnnxModel(export_model(estimator, FEATURES, "binary"), "binary", FEATURES)


@pytest.mark.parametrize("learner", ["hist_gradient_boosting", "linear"])
def test_explanations_that_sum_to_the_scores_are_carried(learner: str) -> None:
    matrices = _matrices()
    estimator = fit(build_pipeline(learner, FEATURES, "binary", {}), FEATURES, matrices.train, matrices.train_label)
    data, gate = explain_model(estimator, matrices, _exported(estimator), 0)
    assert data is not None
    base, found = Explainer(data, FEATURES).explain(matrices.test[:10])
    filled = estimator.decision_function(matrices.test[:10])
    assert base + found.sum(axis=1) == pytest.approx(filled, abs=1e-9)
    assert (gate.name, gate.passed, gate.threshold) == ("explanation", True, 1e-9)
    assert gate.value is not None
    assert gate.value < 1e-12


def test_explanations_of_another_model_are_left_out() -> None:
    matrices = _matrices()
    one, other = (
        fit(build_pipeline("hist_gradient_boosting", FEATURES, "binary", {}), FEATURES, found.train, found.train_label)
        for found in (matrices, _matrices(1))
    )
    data, gate = explain_model(one, matrices, _exported(other), 0)
    assert data is None
    assert (gate.passed, gate.value) == (True, None)
    assert "off the raw scores" in gate.detail


def test_a_learner_without_explainer_is_released_without() -> None:
    matrices = _matrices()
    estimator = make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=2))
    estimator.fit(matrices.train, matrices.train_label)
    data, gate = explain_model(estimator, matrices, _exported(estimator), 0)
    assert data is None
    assert gate.passed
    assert gate.detail.startswith("left out: Pipeline cannot be explained")
