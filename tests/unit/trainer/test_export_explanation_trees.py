from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from esteira.explanation import Explainer
from esteira.schema import Feature
from esteira.scoring import Array, OnnxModel, Task
from explanations import brute_force, import_shap
from trainer.export import NotExplainable, check_additivity, export_explanation, export_model, stress_rows
from trainer.learners import build_pipeline, fit

shap = import_shap()


def _numeric(names: Any) -> list[Feature]:
    return [Feature(str(name), "numeric") for name in names]


def _fit(features: list[Feature], matrix: Array, target: Any, task: Task, **params: object) -> Any:
    return fit(build_pipeline("hist_gradient_boosting", features, task, params), features, matrix, target)


def _explainer(estimator: Any, features: list[Feature], matrix: Array) -> Explainer:
    return Explainer(export_explanation(estimator, features, matrix), features)


def _assert_additive(estimator: Any, features: list[Feature], matrix: Array, task: Task) -> None:
    model = OnnxModel(export_model(estimator, features, task), task, features)
    data = export_explanation(estimator, features, matrix)
    for rows in (matrix, stress_rows(matrix, features, 0, estimator)):
        additivity = check_additivity(data, model, rows)
        assert additivity.passed
        assert additivity.max_difference < 1e-12


def _assert_as_by_definition(estimator: Any, features: list[Feature], matrix: Array) -> None:
    base, found = _explainer(estimator, features, matrix).explain(matrix)
    for row, contributions in zip(matrix, found, strict=True):
        expected_base, expected = brute_force(estimator, row)
        assert base == pytest.approx(expected_base, abs=1e-10)
        assert contributions == pytest.approx(expected, abs=1e-10)


def _mixed(rows: int, seed: int = 0) -> tuple[list[Feature], Array, Array]:
    """Three numbers and two categories, a tenth missing, some codes never seen."""
    generator = np.random.default_rng(seed)
    features = [
        Feature("a", "numeric"),
        Feature("town", "categorical", [f"{code:02d}" for code in range(40)]),
        Feature("b", "numeric"),
        Feature("kind", "categorical", list("uvwxyz")),
        Feature("c", "numeric"),
    ]
    numbers, town = generator.normal(size=(3, rows)), generator.integers(0, 38, rows)
    kind = generator.choice([0.0, 2.0, 3.0, 5.0], rows)
    matrix = np.column_stack([numbers[0], town, numbers[1], kind, numbers[2]])
    matrix[generator.random(matrix.shape) < 0.1] = np.nan
    effects = generator.normal(size=40)[np.nan_to_num(matrix[:, 1], nan=39).astype(int)]
    signal = np.nan_to_num(matrix[:, 0]) * (np.nan_to_num(matrix[:, 3], nan=2) - 2) + effects
    return features, matrix, signal + generator.normal(size=rows) / 4


def test_it_gives_what_shap_gives_for_a_classifier_of_numbers() -> None:
    data = load_breast_cancer()
    features, matrix = _numeric(data.feature_names), data.data.copy()
    matrix[np.random.default_rng(0).random(matrix.shape) < 0.1] = np.nan
    estimator = _fit(features, matrix, data.target, "binary")
    base, found = _explainer(estimator, features, matrix).explain(matrix)
    reference = shap.TreeExplainer(estimator, feature_perturbation="tree_path_dependent")
    assert base == pytest.approx(float(np.ravel(reference.expected_value)[0]), abs=1e-9)
    assert np.abs(found - reference.shap_values(matrix)).max() < 1e-9


@pytest.mark.parametrize("params", [{}, {"max_leaf_nodes": None, "min_samples_leaf": 1}, {"loss": "absolute_error"}])
def test_it_gives_what_shap_gives_for_a_regressor_of_numbers(params: dict[str, object]) -> None:
    data = load_diabetes()
    features = _numeric(data.feature_names)
    estimator = _fit(features, data.data, data.target, "regression", max_iter=30, **params)
    base, found = _explainer(estimator, features, data.data).explain(data.data)
    reference = shap.TreeExplainer(estimator, feature_perturbation="tree_path_dependent")
    assert base == pytest.approx(float(np.ravel(reference.expected_value)[0]), abs=1e-9)
    assert np.abs(found - reference.shap_values(data.data)).max() < 1e-8


def test_shap_itself_is_wrong_where_splits_are_by_category() -> None:
    """Why categories are held against the definition and not against shap, which says nothing."""
    features, matrix, signal = _mixed(1000)
    estimator = _fit(features, matrix, (signal > 0).astype(int), "binary", max_iter=10)
    reference = shap.TreeExplainer(estimator, feature_perturbation="tree_path_dependent")
    sums = reference.expected_value + reference.shap_values(matrix, check_additivity=False).sum(axis=1)
    assert np.abs(sums - estimator.decision_function(matrix)).max() > 0.1


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_categories_and_missing_values_are_as_by_definition(task: Task) -> None:
    features, matrix, signal = _mixed(1500)
    target = (signal > 0).astype(int) if task == "binary" else signal
    estimator = _fit(features, matrix, target, task, max_iter=5)
    _assert_additive(estimator, features, matrix, task)
    probes = stress_rows(matrix, features, 0, estimator)
    _assert_as_by_definition(estimator, features, np.concatenate([matrix[:5], probes[:: len(probes) // 20]]))


def test_a_feature_asked_again_and_again_on_a_path_is_as_by_definition() -> None:
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(600, 2))
    matrix[generator.random(matrix.shape) < 0.05] = np.nan
    target = np.sin(4 * np.nan_to_num(matrix[:, 0])) * np.sign(np.nan_to_num(matrix[:, 1]))
    estimator = _fit(_numeric("ab"), matrix, target, "regression", max_iter=3, min_samples_leaf=3)
    _assert_as_by_definition(estimator, _numeric("ab"), matrix[:50])


def test_a_split_of_missing_from_present_values_is_as_by_definition() -> None:
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(300, 2)).round(1)
    matrix[:150, 0] = np.nan
    estimator = _fit(_numeric("ab"), matrix, np.isnan(matrix[:, 0]).astype(int), "binary", max_iter=2)
    assert np.isinf(estimator._predictors[0][0].nodes["num_threshold"]).any()
    _assert_as_by_definition(estimator, _numeric("ab"), matrix[140:160])


def test_codes_that_training_did_not_see_explain_as_missing_ones() -> None:
    features, matrix, signal = _mixed(1000)
    explainer = _explainer(_fit(features, matrix, signal, "regression", max_iter=10), features, matrix)
    unseen, missing = matrix[:5].copy(), matrix[:5].copy()
    unseen[:, 3], missing[:, 3] = 4.0, np.nan
    assert explainer.explain(unseen)[1].tolist() == explainer.explain(missing)[1].tolist()


def test_features_that_no_tree_asks_contribute_nothing() -> None:
    generator = np.random.default_rng(0)
    matrix = np.column_stack([generator.normal(size=400), np.ones(400), np.full(400, np.nan)])
    estimator = _fit(_numeric("abc"), matrix, matrix[:, 0] ** 2, "regression")
    _, found = _explainer(estimator, _numeric("abc"), matrix).explain(matrix)
    assert not found[:, 1:].any()
    assert found[:, 0].any()


def test_trees_of_one_leaf_explain_nothing_but_the_base() -> None:
    matrix, target = np.ones((50, 2)), np.arange(50) % 2
    estimator = _fit(_numeric("ab"), matrix, target, "binary", max_iter=3)
    base, found = _explainer(estimator, _numeric("ab"), matrix).explain(matrix)
    assert found.tolist() == np.zeros((50, 2)).tolist()
    assert base == pytest.approx(float(estimator.decision_function(matrix[:1])[0]), abs=1e-12)


def test_a_category_that_the_booster_takes_for_a_number_is_as_by_definition() -> None:
    features = [Feature("c", "categorical", list("abcdefgh")), Feature("n", "numeric")]
    generator = np.random.default_rng(0)
    matrix = np.column_stack([generator.integers(0, 8, 500).astype(float), generator.normal(size=500)])
    matrix[generator.random(matrix.shape) < 0.1] = np.nan
    target = (np.nan_to_num(matrix[:, 0]) > 4) * 1.0 + np.nan_to_num(matrix[:, 1])
    estimator = HistGradientBoostingRegressor(max_iter=3).fit(matrix, target)
    _assert_as_by_definition(estimator, features, matrix[:20])


def test_a_batch_explains_as_its_rows_do_one_by_one() -> None:
    features, matrix, signal = _mixed(700)
    explainer = _explainer(_fit(features, matrix, signal, "regression", max_iter=20), features, matrix)
    alone = np.concatenate([explainer.explain(row[None])[1] for row in matrix])
    assert np.abs(explainer.explain(matrix)[1] - alone).max() < 1e-12
    assert explainer.explain(matrix[:0])[1].shape == (0, 5)


def test_paths_of_many_features_stay_exact() -> None:
    generator = np.random.default_rng(0)
    features, matrix = _numeric(range(60)), generator.normal(size=(800, 60))
    target = (matrix > 0).sum(axis=1) + generator.normal(size=800)
    estimator = _fit(features, matrix, target, "regression", max_iter=2, min_samples_leaf=1, max_leaf_nodes=None)
    reference = shap.TreeExplainer(estimator, feature_perturbation="tree_path_dependent").shap_values(matrix[:20])
    base, found = _explainer(estimator, features, matrix).explain(matrix[:20])
    assert max(tree.nodes["depth"].max() for (tree,) in estimator._predictors) > 12
    assert np.abs(found - reference).max() < 1e-9
    assert np.abs(base + found.sum(axis=1) - estimator.predict(matrix[:20])).max() < 1e-12


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_random_tables_explain_as_by_definition(data: st.DataObject) -> None:
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows, sizes = data.draw(st.integers(20, 200)), data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=4))
    features = [
        Feature(f"f{i}", "categorical" if size else "numeric", [f"{code:02d}" for code in range(size)])
        for i, size in enumerate(sizes)
    ]
    columns = [generator.integers(0, size, rows) if size else generator.normal(size=rows).round(1) for size in sizes]
    matrix = np.column_stack(columns).astype(np.float64)
    matrix[generator.random(matrix.shape) < data.draw(st.sampled_from([0.0, 0.3]))] = np.nan
    task: Task = data.draw(st.sampled_from(["binary", "regression"]))
    target = generator.permutation(np.arange(rows) % (2 if task == "binary" else 4))
    estimator = _fit(features, matrix, target, task, max_iter=3, min_samples_leaf=2)
    _assert_additive(estimator, features, matrix, task)
    _assert_as_by_definition(estimator, features, stress_rows(matrix, features, 0, estimator)[:6])


def test_three_classes_are_not_explained() -> None:
    data = load_wine()
    features = _numeric(data.feature_names)
    estimator = _fit(features, data.data, data.target, "multiclass", max_iter=2)
    with pytest.raises(NotExplainable, match="more than two classes"):
        export_explanation(estimator, features, data.data)


def test_boosting_behind_a_transformer_is_not_explained() -> None:
    matrix = np.random.default_rng(0).normal(size=(100, 2))
    estimator = make_pipeline(StandardScaler(), HistGradientBoostingRegressor(max_iter=2)).fit(matrix, matrix[:, 0])
    with pytest.raises(NotExplainable, match="behind a transformer"):
        export_explanation(estimator, _numeric("ab"), matrix)


def test_the_same_model_is_explained_by_the_same_bytes() -> None:
    features, matrix, signal = _mixed(500)
    estimator = _fit(features, matrix, signal, "regression", max_iter=3)
    assert export_explanation(estimator, features, matrix) == export_explanation(estimator, features, matrix)
