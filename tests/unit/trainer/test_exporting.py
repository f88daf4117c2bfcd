from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from esteira.release import MODEL, TREES
from esteira.schema import Feature
from esteira.scoring import OnnxModel
from esteira.trees import TreesModel
from trainer import packaging
from trainer.export import NotExportable, stress_rows
from trainer.exporting import export_proved, export_proved_trees
from trainer.fit import Matrices
from trainer.learners import build_pipeline, fit

FEATURES = [Feature("n", "numeric"), Feature("c", "categorical", list("abcd"))]


@pytest.fixture(scope="module")
def matrices() -> Matrices:
    generator = np.random.default_rng(0)
    matrix = np.column_stack([generator.normal(size=900), generator.integers(0, 4, 900)]).astype(np.float64)
    label = (matrix[:, 0] + matrix[:, 1] + generator.normal(size=900) > 1.5).astype(np.float64)
    matrix[generator.random(matrix.shape) < 0.1] = np.nan
    return Matrices(FEATURES, matrix[:500], label[:500], matrix[500:], label[500:])


def _fit(learner: str, matrices: Matrices, **params: Any) -> Any:
    unfitted = build_pipeline(learner, FEATURES, "binary", params)
    return fit(unfitted, FEATURES, matrices.train, matrices.train_label)


def test_boosting_is_released_in_both_forms(matrices: Matrices, tmp_path: Path) -> None:
    estimator = _fit("hist_gradient_boosting", matrices)
    exported = export_proved(estimator, matrices, "binary", 0)
    assert exported.trees is not None
    onnx, trees = OnnxModel(exported.model, "binary", FEATURES), TreesModel(exported.trees, "binary", FEATURES)
    assert trees.raw(matrices.test).tobytes() == onnx.raw(matrices.test).tobytes()
    rows = len(matrices.test) + len(stress_rows(matrices.test, FEATURES, 0, estimator))
    assert [(gate.name, gate.passed, gate.value) for gate in exported.gates] == [
        ("parity", True, 0.0),
        ("trees", True, 0.0),
    ]
    assert exported.gates[1].detail == f"{rows} rows, bit-equal"
    packaging.write_model(tmp_path, exported.model, exported.trees, estimator)
    assert (tmp_path / MODEL).read_bytes() == exported.model
    assert (tmp_path / TREES).read_bytes() == exported.trees


def test_a_linear_model_is_released_as_onnx_alone(matrices: Matrices, tmp_path: Path) -> None:
    estimator = _fit("linear", matrices)
    exported = export_proved(estimator, matrices, "binary", 0)
    assert exported.trees is None
    assert [gate.passed for gate in exported.gates] == [True, True]
    assert exported.gates[1].value is None
    assert exported.gates[1].detail.startswith("left out: Pipeline is not summed by native code")
    packaging.write_model(tmp_path, exported.model, exported.trees, estimator)
    assert not (tmp_path / TREES).exists()


def test_boosting_behind_a_transformer_is_released_as_onnx_alone(matrices: Matrices) -> None:
    estimator = make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=2))
    estimator.fit(matrices.train, matrices.train_label)
    exported = export_proved(estimator, matrices, "binary", 0)
    assert exported.trees is None
    assert all(gate.passed for gate in exported.gates)


def test_trees_that_differ_in_a_bit_are_left_out_and_the_gate_says_so(
    matrices: Matrices, caplog: pytest.LogCaptureFixture
) -> None:
    estimator = _fit("hist_gradient_boosting", matrices)
    summed = estimator._raw_predict
    estimator._raw_predict = lambda *given: summed(*given) * (1 + 2**-50)  # as another scikit-learn might
    trees, gate = export_proved_trees(estimator, matrices, "binary", matrices.test)
    assert trees is None
    assert (gate.name, gate.passed, gate.value) == ("trees", True, None)
    assert gate.detail.startswith("left out: scores are")
    assert [record.getMessage() for record in caplog.records] == ["sums of trees differ from scikit-learn"]


def test_what_has_no_exact_form_is_not_exported(matrices: Matrices) -> None:
    estimator = DecisionTreeClassifier().fit(np.nan_to_num(matrices.train), matrices.train_label)
    with pytest.raises(NotExportable):
        export_proved(estimator, matrices, "binary", 0)
