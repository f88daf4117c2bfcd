from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from esteira.explanation import Explainer
from esteira.schema import Feature
from esteira.scoring import Array, OnnxModel, Task
from explanations import import_shap
from trainer.export import NotExplainable, check_additivity, export_explanation, export_model, stress_rows
from trainer.learners import build_pipeline, fit

shap = import_shap()


def _numeric(names: Any) -> list[Feature]:
    return [Feature(str(name), "numeric") for name in names]


def _mixed(rows: int, seed: int = 0) -> tuple[list[Feature], Array]:
    """Two numbers and two categories, a tenth missing."""
    generator = np.random.default_rng(seed)
    features = [
        Feature("town", "categorical", list("abcdefgh")),
        Feature("n", "numeric"),
        Feature("kind", "categorical", list("xyz")),
        Feature("m", "numeric"),
    ]
    town, kind = generator.integers(0, 7, rows), generator.integers(0, 3, rows)
    matrix = np.column_stack([town, generator.normal(50, 9, rows), kind, generator.exponential(2, rows)])
    matrix[generator.random(matrix.shape) < 0.1] = np.nan
    return features, matrix


def _reference(pipeline: Any, matrix: Array, rows: Array) -> tuple[float, Array]:
    """What shap gives for the prepared columns, which stand in the order of the pipeline's parts."""
    prepared = _dense(pipeline[:-1].transform(matrix))
    masker = shap.maskers.Independent(prepared, max_samples=len(prepared))
    explainer = shap.LinearExplainer(pipeline[-1], masker)
    return float(explainer.expected_value), explainer.shap_values(_dense(pipeline[:-1].transform(rows)))


def _dense(prepared: Any) -> Array:
    return np.asarray(prepared.toarray() if hasattr(prepared, "toarray") else prepared)


def _assert_additive(estimator: Any, features: list[Feature], matrix: Array, task: Task) -> None:
    model = OnnxModel(export_model(estimator, features, task), task, features)
    data = export_explanation(estimator, features, matrix)
    for rows in (matrix, stress_rows(matrix, features, 0, estimator)):
        assert check_additivity(data, model, rows).max_difference < 1e-12


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_the_default_pipeline_is_explained_as_shap_does_column_by_column(task: Task) -> None:
    features, matrix = _mixed(500)
    target = np.nan_to_num(matrix[:, 1], nan=40) + 3 * (matrix[:, 0] == 2) + np.nan_to_num(matrix[:, 3])
    target = (target > 53).astype(int) if task == "binary" else target
    pipeline = fit(build_pipeline("linear", features, task, {}), features, matrix, target)
    rows = stress_rows(matrix[:50], features, 0)[:100]
    base, found = Explainer(export_explanation(pipeline, features, matrix), features).explain(rows)
    expected_base, columns = _reference(pipeline, matrix, rows)
    sources = np.repeat([1, 3, 0, 2], [1, 1, 9, 4])
    expected = np.array([columns[:, sources == feature].sum(axis=1) for feature in range(4)]).T
    assert base == pytest.approx(expected_base, abs=1e-9)
    assert found == pytest.approx(expected, abs=1e-9, rel=1e-9)
    _assert_additive(pipeline, features, matrix, task)


def test_a_row_at_the_mean_of_every_number_contributes_nothing() -> None:
    data = load_breast_cancer()
    features = _numeric(data.feature_names)
    pipeline = fit(build_pipeline("linear", features, "binary", {}), features, data.data, data.target)
    explainer = Explainer(export_explanation(pipeline, features, data.data), features)
    assert np.abs(explainer.explain(data.data.mean(axis=0)[None])[1]).max() < 1e-12
    assert np.abs(explainer.explain(data.data)[1].mean(axis=0)).max() < 1e-12


def test_codes_that_training_did_not_see_add_nothing_but_the_mean_taken_off() -> None:
    features, matrix = _mixed(300)
    pipeline = fit(build_pipeline("linear", features, "regression", {}), features, matrix, np.nan_to_num(matrix[:, 0]))
    _assert_additive(pipeline, features, np.concatenate([matrix, [[7.0, 1.0, 2.0, 1.0]]]), "regression")


def test_pipelines_of_one_s_own_are_explained_too() -> None:
    """Scaled twice, imputed in between, two parts that read one feature, a category taken for a number."""
    features, matrix = _mixed(400)
    steps = ColumnTransformer(
        [
            ("twice", make_pipeline(StandardScaler(), SimpleImputer(strategy="mean"), StandardScaler()), [1, 3]),
            ("again", SimpleImputer(strategy="median"), [3]),
            ("coded", make_pipeline(SimpleImputer(strategy="most_frequent"), StandardScaler()), [0]),
            ("kept", OneHotEncoder(categories=[[0.0, 1.0]], handle_unknown="ignore", sparse_output=False), [2]),
            ("dropped", "drop", [0]),
        ]
    )
    pipeline = make_pipeline(steps, LinearRegression()).fit(matrix, np.nan_to_num(matrix).sum(axis=1))
    _assert_additive(pipeline, features, matrix, "regression")


def test_a_bare_model_is_explained() -> None:
    data = load_breast_cancer()
    features, matrix = _numeric(range(5)), data.data[:, :5]
    estimator = LogisticRegression(max_iter=5000).fit(matrix, data.target)
    explainer = Explainer(export_explanation(estimator, features, matrix), features)
    expected = estimator.coef_[0] * (matrix - matrix.mean(axis=0))
    assert np.abs(explainer.explain(matrix)[1] - expected).max() < 1e-9


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_random_tables_add_up(data: st.DataObject) -> None:
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows, sizes = data.draw(st.integers(20, 200)), data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=4))
    features = [
        Feature(f"f{i}", "categorical" if size else "numeric", [f"{code:02d}" for code in range(size)])
        for i, size in enumerate(sizes)
    ]
    columns = [generator.integers(0, size, rows) if size else generator.normal(size=rows).round(1) for size in sizes]
    matrix = np.column_stack(columns).astype(np.float64)
    matrix[generator.random(matrix.shape) < data.draw(st.sampled_from([0.0, 0.3]))] = np.nan
    task: Task = data.draw(st.sampled_from(["binary", "regression"]))
    target = generator.permutation(np.arange(rows) % (2 if task == "binary" else 4))
    estimator = fit(build_pipeline("linear", features, task, {}), features, matrix, target)
    _assert_additive(estimator, features, matrix, task)


def test_three_classes_are_not_explained() -> None:
    data = load_wine()
    features = _numeric(data.feature_names)
    estimator = fit(build_pipeline("linear", features, "multiclass", {}), features, data.data, data.target)
    with pytest.raises(NotExplainable, match="more than two classes"):
        export_explanation(estimator, features, data.data)


def test_a_number_spread_into_categories_is_not_explained() -> None:
    matrix = np.random.default_rng(0).integers(0, 3, (100, 1)).astype(float)
    estimator = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LinearRegression()).fit(matrix, matrix[:, 0])
    with pytest.raises(NotExplainable, match="spreads a number"):
        export_explanation(estimator, _numeric("a"), matrix)


def test_a_missing_value_that_nothing_imputes_explains_its_score_of_nan() -> None:
    matrix = np.random.default_rng(0).integers(0, 3, (100, 2)).astype(float)
    features = [Feature("c", "categorical", list("abc")), Feature("n", "numeric")]
    estimator = make_pipeline(StandardScaler(), LinearRegression()).fit(matrix, matrix[:, 0])
    _assert_additive(estimator, features, matrix, "regression")
    explainer = Explainer(export_explanation(estimator, features, matrix), features)
    _, found = explainer.explain(np.array([[np.nan, 1.0], [1.0, np.nan]]))
    assert np.isnan(found).tolist() == [[True, False], [False, True]]
