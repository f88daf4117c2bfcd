"""The learners that a pipeline can name, and the matrix they are fitted on.

All learn from the matrix of `esteira.scoring.Encoder`, as does an estimator that a pipeline brings itself: what
serving scores is what training saw.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from esteira.exceptions import PipelineInvalid
from esteira.schema import Feature
from esteira.scoring import Array, Encoder, Task

MAX_CATEGORIES: Final = 255
"""A histogram has 255 bins for values beside the one for missing values."""

Kind = Literal["numeric", "categorical"]
Params = Mapping[str, Any]


def learn_features(
    frame: pd.DataFrame, kinds: Mapping[str, Kind], max_categories: int = MAX_CATEGORIES
) -> list[Feature]:
    """Makes the list of features, with the categories found in `frame`, which holds the training rows only.

    A column with more than `max_categories` keeps the most frequent ones (of equals, the first by code point); the
    rarer ones are encoded as missing, in training as in serving.

    Raises:
        PipelineInvalid: a column is not in the frame, or a categorical one holds values that are no strings.
    """
    if absent := [name for name in kinds if name not in frame]:
        raise PipelineInvalid(f"features {absent} are not among the columns; name them as features.sql does")
    return [
        Feature(name, kind, _categories(frame[name], max_categories) if kind == "categorical" else [])
        for name, kind in kinds.items()
    ]


def _categories(column: "pd.Series[Any]", limit: int) -> list[str]:
    counts = column.dropna().astype(object).value_counts(sort=False)
    if wrong := [value for value in counts.index if not isinstance(value, str)]:
        found = type(wrong[0]).__name__
        raise PipelineInvalid(f"feature {column.name}: {wrong[0]!r} is of type {found}; cast categories to text")
    seen = sorted((-count, name) for name, count in counts.items() if count)
    return sorted(str(name) for _, name in seen[:limit])


def encode_frame(features: Sequence[Feature], frame: pd.DataFrame) -> Array:
    """Encodes the rows of `frame`, whose missing values may be any that pandas knows."""
    return Encoder(features).encode({feature.name: _values(frame[feature.name], feature) for feature in features})


def _values(column: "pd.Series[Any]", feature: Feature) -> np.ndarray[Any, Any]:
    if feature.kind == "numeric" and pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    plain = column.astype(object)
    return plain.where(plain.notna(), None).to_numpy()


def build_pipeline(learner: str, features: Sequence[Feature], task: Task, params: Params) -> BaseEstimator:
    """Builds an estimator that is to be fitted on the matrix of `features`.

    Args:
        learner: a name in `LEARNERS`.
        features: the matrix's columns, in order.
        task: what to learn.
        params: passed to scikit-learn's estimator; `random_state` is 0 if it is not among them.

    Raises:
        PipelineInvalid: no such learner or parameter, a value out of its range, no features, or more categories than
            bins.
    """
    if learner not in LEARNERS:
        raise PipelineInvalid(f"there is no learner {learner!r}; choose one of {sorted(LEARNERS)}, or bring a model.py")
    if not features:
        raise PipelineInvalid("there are no features to learn from; name at least one")
    return LEARNERS[learner](features, task, params)


def fit(
    estimator: Any,
    features: Sequence[Feature],
    matrix: Array,
    target: npt.ArrayLike,
    sample_weight: npt.ArrayLike | None = None,
) -> Any:
    """Fits `estimator` on `matrix` and gives it back.

    A numeric column without a single value is fitted as zeros, so that nothing is learnt from it: histogram boosting
    cannot bin a column that holds nothing. Weights go to the last step of a pipeline.
    """
    if sample_weight is None:
        return estimator.fit(_without_empty(features, matrix), target)
    prefix = f"{estimator.steps[-1][0]}__" if isinstance(estimator, Pipeline) else ""
    return estimator.fit(_without_empty(features, matrix), target, **{f"{prefix}sample_weight": sample_weight})


def _without_empty(features: Sequence[Feature], matrix: Array) -> Array:
    numeric = np.array([feature.kind == "numeric" for feature in features])
    empty = numeric & np.isnan(matrix).all(axis=0)
    return np.where(empty, 0.0, matrix) if empty.any() else matrix


def predict_scores(estimator: Any, matrix: Array, task: Task) -> Array:
    """Scores with scikit-learn, in the shape of `esteira.scoring.OnnxModel.score`."""
    if task == "regression":
        return np.ascontiguousarray(estimator.predict(matrix), dtype=np.float64)
    probabilities = estimator.predict_proba(matrix)
    return np.ascontiguousarray(probabilities[:, 1] if task == "binary" else probabilities, dtype=np.float64)


def _hist_gradient_boosting(features: Sequence[Feature], task: Task, params: Params) -> BaseEstimator:
    categorical = [index for index, feature in enumerate(features) if feature.kind == "categorical"]
    kind = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    estimator = _configure(kind(categorical_features=categorical or None, random_state=0), params)
    bins = estimator.get_params()["max_bins"]
    for feature in features:
        if len(feature.categories) > bins:
            found = len(feature.categories)
            raise PipelineInvalid(f"feature {feature.name} has {found} categories, max_bins is {bins}; keep fewer")
    return estimator


def _linear(features: Sequence[Feature], task: Task, params: Params) -> BaseEstimator:
    model = Ridge(random_state=0) if task == "regression" else LogisticRegression(max_iter=1000, random_state=0)
    return Pipeline([("columns", _preparation(features)), ("model", _configure(model, params))])


def _preparation(features: Sequence[Feature]) -> ColumnTransformer:
    """Scales numbers and spreads categories; a missing value is the median, a missing category one of its own."""
    numeric = [index for index, feature in enumerate(features) if feature.kind == "numeric"]
    categorical = [index for index, feature in enumerate(features) if feature.kind == "categorical"]
    scaled = Pipeline(
        [("impute", SimpleImputer(strategy="median", keep_empty_features=True)), ("scale", StandardScaler())]
    )
    codes = [np.array([*range(len(features[index].categories)), np.nan]) for index in categorical]
    one_hot = OneHotEncoder(categories=codes, handle_unknown="ignore")
    parts = [("numeric", scaled, numeric), ("categorical", one_hot, categorical)]
    return ColumnTransformer([part for part in parts if part[2]])


def _configure(estimator: Any, params: Params) -> Any:
    if unknown := sorted(set(params) - set(estimator.get_params())):
        known = ", ".join(sorted(estimator.get_params()))
        raise PipelineInvalid(f"{type(estimator).__name__} has no parameters {unknown}; it has {known}")
    estimator.set_params(**params)
    try:
        estimator._validate_params()
    except ValueError as error:
        raise PipelineInvalid(f"params of the learner: {error}") from error
    return estimator


LEARNERS: Final[Mapping[str, Callable[[Sequence[Feature], Task, Params], BaseEstimator]]] = {
    "hist_gradient_boosting": _hist_gradient_boosting,
    "linear": _linear,
}
