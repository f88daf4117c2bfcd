from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

from esteira.exceptions import PermanentError, ReleaseRefused
from esteira.schema import Feature
from esteira.scoring import Array, OnnxModel, Task
from trainer.export import NotExportable, check_parity, export_model, stress_rows
from trainer.learners import build_pipeline, fit

DATA: dict[Task, Any] = {"binary": load_breast_cancer(), "multiclass": load_wine(), "regression": load_diabetes()}


def _numeric(names: Any) -> list[Feature]:
    return [Feature(str(name), "numeric") for name in names]


def _assert_within_tolerance(estimator: Any, features: list[Feature], matrix: Array, task: Task) -> OnnxModel:
    model = OnnxModel(export_model(estimator, features, task), task, features)
    for rows in (matrix, stress_rows(matrix, features, 0, estimator)):
        parity = check_parity(estimator, model, rows)
        assert parity.decisions_changed == 0
        assert parity.passed
    return model


def _mixed() -> tuple[list[Feature], Array, np.ndarray]:
    generator = np.random.default_rng(0)
    features = [Feature("n", "numeric"), Feature("c", "categorical", list("vwxyz")), Feature("m", "numeric")]
    matrix = np.column_stack(
        [generator.normal(1e9, 5, 800), generator.integers(0, 4, 800), generator.exponential(3, 800)]
    )
    matrix[generator.random(matrix.shape) < 0.2] = np.nan
    target = (np.nan_to_num(matrix[:, 1]) + np.nan_to_num(matrix[:, 2]) > 3).astype(int)
    return features, matrix, target


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_linear_learner_keeps_within_the_tolerance(task: Task) -> None:
    data = DATA[task]
    features = _numeric(data.feature_names)
    estimator = fit(build_pipeline("linear", features, task, {}), features, data.data, data.target)
    _assert_within_tolerance(estimator, features, data.data, task)


def test_missing_values_and_categories_keep_within_the_tolerance() -> None:
    features, matrix, target = _mixed()
    estimator = fit(build_pipeline("linear", features, "binary", {}), features, matrix, target)
    model = _assert_within_tolerance(estimator, features, matrix, "binary")
    assert model.score(matrix[:1]) == pytest.approx(estimator.predict_proba(matrix[:1])[:, 1], rel=1e-12)


def test_the_largest_numbers_never_score_nan() -> None:
    features, matrix, target = _mixed()
    estimator = fit(build_pipeline("linear", features, "binary", {}), features, matrix, target)
    model = OnnxModel(export_model(estimator, features, "binary"), "binary", features)
    extremes = np.array([[a, 0.0, b] for a in (1.7e308, -1.7e308) for b in (1.7e308, -1.7e308)])
    assert np.isfinite(model.score(extremes)).all()


@pytest.mark.parametrize("model", [LinearRegression(), Ridge(), Ridge(fit_intercept=False)])
def test_plain_linear_models_keep_within_the_tolerance(model: Any) -> None:
    data = DATA["regression"]
    features = _numeric(data.feature_names)
    estimator = model.fit(data.data, data.target)
    _assert_within_tolerance(
        make_pipeline(SimpleImputer(), estimator).fit(data.data, data.target), features, data.data, "regression"
    )


def test_a_boosted_model_behind_preparation_is_bit_equal() -> None:
    data = DATA["binary"]
    features = _numeric(data.feature_names)
    steps = make_pipeline(
        SimpleImputer(), StandardScaler(), HistGradientBoostingClassifier(max_iter=10, random_state=0)
    )
    estimator = steps.fit(data.data, data.target)
    model = OnnxModel(export_model(estimator, features, "binary"), "binary", features)
    assert check_parity(estimator, model, stress_rows(data.data, features, 0, estimator)).bit_equal


def test_columns_are_chosen_by_position_slice_or_mask() -> None:
    data = DATA["binary"]
    features = _numeric(data.feature_names)
    mask = np.zeros(30, dtype=bool)
    mask[[7, 9]] = True
    parts = [("a", StandardScaler(), [3, 1]), ("b", StandardScaler(), slice(4, 6)), ("c", "passthrough", mask)]
    estimator = Pipeline([("columns", ColumnTransformer(parts)), ("model", LogisticRegression(max_iter=5000))])
    matrix = np.nan_to_num(data.data)
    estimator.fit(matrix, data.target)
    model = OnnxModel(export_model(estimator, features, "binary"), "binary", features)
    assert check_parity(estimator, model, matrix).passed


@pytest.mark.parametrize(
    "estimator, name",
    [
        (RandomForestClassifier(n_estimators=2), "RandomForestClassifier"),
        (make_pipeline(MinMaxScaler(), LogisticRegression()), "MinMaxScaler"),
        (make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression(max_iter=5000)), "SimpleImputer"),
        (make_pipeline(OneHotEncoder(sparse_output=False), LogisticRegression()), "OneHotEncoder"),
    ],
)
def test_what_has_no_exact_form_is_named(estimator: Any, name: str) -> None:
    matrix = np.array([[0.0], [1.0], [0.0], [1.0]])
    estimator.fit(matrix, [0, 1, 0, 1])
    with pytest.raises(NotExportable, match=f"{name} cannot be exported: .*; build the model from") as refusal:
        export_model(estimator, _numeric("a"), "binary")
    assert refusal.value.estimator == name
    assert isinstance(refusal.value, PermanentError)


def test_an_estimator_that_is_not_fitted_or_fits_another_task_or_width_is_not_exportable() -> None:
    with pytest.raises(NotExportable, match="not fitted"):
        export_model(Ridge(), _numeric("a"), "regression")
    fitted = Ridge().fit([[0.0], [1.0]], [0.0, 1.0])
    with pytest.raises(NotExportable, match="does not fit the task"):
        export_model(fitted, _numeric("a"), "binary")
    with pytest.raises(NotExportable, match="1 columns where the pipeline has 2"):
        export_model(fitted, _numeric("ab"), "regression")


def test_a_model_is_refused_for_another_task_or_other_features() -> None:
    exported = export_model(Ridge().fit([[0.0], [1.0]], [0.0, 1.0]), _numeric("a"), "regression")
    with pytest.raises(ReleaseRefused, match="task is 'regression', the release's 'binary'"):
        OnnxModel(exported, "binary", _numeric("a"))
    for features in (_numeric("b"), _numeric("aa"), [Feature("a", "categorical", ["x"])]):
        with pytest.raises(ReleaseRefused, match="features"):
            OnnxModel(exported, "regression", features)


def test_parity_sees_a_model_that_is_not_the_estimator() -> None:
    data = DATA["binary"]
    features = _numeric(data.feature_names)
    first, second = (
        fit(build_pipeline("linear", features, "binary", {"C": c}), features, data.data, data.target)
        for c in (1.0, 1e-4)
    )
    parity = check_parity(first, OnnxModel(export_model(second, features, "binary"), "binary", features), data.data)
    assert (parity.passed, parity.bit_equal) == (False, False)
    assert parity.decisions_changed > 0
    assert parity.max_abs_difference > 0.1


def test_no_rows_score_as_no_rows() -> None:
    exported = export_model(Ridge().fit([[0.0], [1.0]], [0.0, 1.0]), _numeric("a"), "regression")
    assert OnnxModel(exported, "regression", _numeric("a")).score(np.empty((0, 1))).shape == (0,)
