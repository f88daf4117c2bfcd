import math

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer

from esteira.exceptions import PipelineInvalid
from esteira.schema import Feature
from trainer.learners import LEARNERS, build_pipeline, encode_frame, fit, learn_features, predict_scores

NUMBERS = [Feature("a", "numeric"), Feature("b", "numeric")]


def test_categories_are_sorted_and_those_that_do_not_occur_are_left_out() -> None:
    column = pd.Categorical(["b", "a", None, "b"], categories=["z", "b", "a"])
    frame = pd.DataFrame({"n": [1.0] * 4, "c": column})
    features = learn_features(frame, {"c": "categorical", "n": "numeric"})
    assert features == [Feature("c", "categorical", ["a", "b"]), Feature("n", "numeric")]


def test_the_rarest_categories_are_encoded_as_missing() -> None:
    frame = pd.DataFrame({"c": ["a", "b", "b", "c", "c", "d"]})
    features = learn_features(frame, {"c": "categorical"}, max_categories=3)
    assert features[0].categories == ["a", "b", "c"]
    assert math.isnan(encode_frame(features, frame)[5, 0])


def test_at_most_255_categories_are_kept() -> None:
    frame = pd.DataFrame({"c": [f"{code:04d}" for code in range(300) for _ in range(2 if code > 44 else 1)]})
    categories = learn_features(frame, {"c": "categorical"})[0].categories
    assert categories == [f"{code:04d}" for code in range(45, 300)]


def test_categories_that_are_no_strings_are_refused() -> None:
    with pytest.raises(PipelineInvalid, match="cast categories to text"):
        learn_features(pd.DataFrame({"c": [1, 2]}), {"c": "categorical"})


def test_a_feature_without_a_column_is_refused() -> None:
    with pytest.raises(PipelineInvalid, match="absent"):
        learn_features(pd.DataFrame({"c": [1, 2]}), {"absent": "numeric"})


def test_every_missing_value_of_pandas_is_encoded_as_nan() -> None:
    frame = pd.DataFrame(
        {
            "integer": pd.array([1, None], dtype="Int64"),
            "boolean": pd.array([True, None], dtype="boolean"),
            "object": pd.Series([2.5, None], dtype=object),
            "text": pd.array(["x", None], dtype="string"),
            "category": pd.Categorical(["x", None]),
        }
    )
    kinds = {name: "categorical" if name in {"text", "category"} else "numeric" for name in frame}
    matrix = encode_frame(learn_features(frame, kinds), frame)  # type: ignore[arg-type]
    assert matrix[0].tolist() == [1.0, 1.0, 2.5, 0.0, 0.0]
    assert np.isnan(matrix[1]).all()


@pytest.mark.parametrize(
    "learner, params, message",
    [
        ("forest", {}, "no learner 'forest'"),
        ("linear", {"learning_rate": 0.1}, r"no parameters \['learning_rate'\]"),
        ("hist_gradient_boosting", {"max_iter": -1}, "max_iter"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(learner: str, params: dict[str, object], message: str) -> None:
    with pytest.raises(PipelineInvalid, match=message):
        build_pipeline(learner, NUMBERS, "binary", params)


def test_more_categories_than_bins_are_refused() -> None:
    features = [Feature("c", "categorical", ["a", "b", "c"])]
    with pytest.raises(PipelineInvalid, match="3 categories"):
        build_pipeline("hist_gradient_boosting", features, "binary", {"max_bins": 2})


def test_no_features_are_refused() -> None:
    with pytest.raises(PipelineInvalid, match="no features"):
        build_pipeline("linear", [], "binary", {})


@pytest.mark.parametrize("learner", sorted(LEARNERS))
def test_the_same_rows_give_the_same_model(learner: str) -> None:
    data = load_breast_cancer()
    features = [Feature(str(name), "numeric") for name in data.feature_names]
    first, second = (
        fit(build_pipeline(learner, features, "binary", {}), features, data.data, data.target) for _ in "12"
    )
    scores = predict_scores(first, data.data, "binary")
    assert scores.tobytes() == predict_scores(second, data.data, "binary").tobytes()
    assert np.mean((scores > 0.5) == data.target) > 0.95


@pytest.mark.parametrize("learner", sorted(LEARNERS))
def test_weights_reach_the_model(learner: str) -> None:
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(400, 2))
    target = (matrix[:, 0] > 0).astype(int)
    weights = np.where(target == 1, 50.0, 1.0)
    noisy = np.where(generator.random(400) < 0.3, 1 - target, target)
    plain, weighted = (
        fit(build_pipeline(learner, NUMBERS, "binary", {}), NUMBERS, matrix, noisy, sample_weight)
        for sample_weight in (None, weights)
    )
    assert predict_scores(weighted, matrix, "binary").mean() > predict_scores(plain, matrix, "binary").mean()


@pytest.mark.parametrize("learner", sorted(LEARNERS))
def test_a_column_without_a_value_teaches_nothing(learner: str) -> None:
    matrix = np.random.default_rng(0).normal(size=(200, 2))
    target = (matrix[:, 0] > 0).astype(int)
    matrix[:, 1] = np.nan
    model = fit(build_pipeline(learner, NUMBERS, "binary", {}), NUMBERS, matrix, target)
    filled = matrix.copy()
    filled[:, 1] = 7.0
    assert predict_scores(model, filled, "binary").tobytes() == predict_scores(model, matrix, "binary").tobytes()
