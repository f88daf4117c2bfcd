"""Fitted scikit-learn estimators as ONNX that scores alike."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from esteira.links import Link
from esteira.schema import Feature
from esteira.scoring import FORMAT, INPUT, Label, Metadata, Task, digest
from trainer.export.graph import Graph, NotExportable
from trainer.export.linear import add_linear, add_transformer
from trainer.export.trees import add_booster

BOOSTERS: Final = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
LINEAR_MODELS: Final = (LogisticRegression, Ridge, LinearRegression)
CLASSIFIERS: Final = (HistGradientBoostingClassifier, LogisticRegression)
_LINKS: Final[dict[str, Link]] = {
    "IdentityLink": "identity",
    "LogLink": "log",
    "LogitLink": "logit",
    "MultinomialLogit": "softmax",
}


def export_model(estimator: Any, features: Sequence[Feature], task: Task) -> bytes:
    """Writes a fitted estimator as an ONNX file for `esteira.scoring.OnnxModel`.

    Histogram boosting comes out bit-equal to scikit-learn; a linear model within the tolerance of `check_parity`,
    which has the last word.

    Args:
        estimator: fitted on the matrix that `esteira.scoring.Encoder` makes of `features`.
        features: the matrix's columns, in order.
        task: what the estimator was fitted for.

    Raises:
        NotExportable: there is no exact form for the estimator, one of its steps or settings.
    """
    steps, final = split_steps(estimator)
    _require_matrix(estimator, len(features))
    metadata = describe(final, features, task, FORMAT)
    graph, tensor = Graph(), (INPUT, len(features))
    for step in steps:
        tensor = add_transformer(graph, step, tensor)
    raw, outputs = _add_final(graph, final, tensor[0], features if not steps else None)
    return graph.to_bytes(raw, len(features), outputs, metadata)


def describe(final: Any, features: Sequence[Feature], task: Task, file_format: str) -> Metadata:
    """What a file in `file_format` says about its model.

    Raises:
        NotExportable: the model does not fit the task, or its link or classes have no exact form.
    """
    return Metadata(file_format, task, digest(features), _link(final, task), _classes(final, task))


def split_steps(estimator: Any) -> tuple[list[Any], Any]:
    """Splits an estimator into its preparation steps and its final model; a plain model has no steps.

    Raises:
        NotExportable: the final model is none that can be exported.
    """
    steps = [step for _, step in estimator.steps] if type(estimator) is Pipeline else [estimator]
    final = steps.pop()
    if type(final) is Pipeline:
        inner, final = split_steps(final)
        steps += inner
    if type(final) not in BOOSTERS + LINEAR_MODELS:
        raise NotExportable(final, "there is no exact form for this model")
    return [step for step in steps if step is not None and not isinstance(step, str)], final


def _require_matrix(estimator: Any, width: int) -> None:
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise NotExportable(estimator, "it is not fitted") from error
    if hasattr(estimator, "feature_names_in_"):
        raise NotExportable(estimator, "it was fitted on a DataFrame")
    if (found := getattr(estimator, "n_features_in_", width)) != width:
        raise NotExportable(estimator, f"it was fitted on {found} columns where the pipeline has {width} features")


def _add_final(graph: Graph, final: Any, tensor: str, features: Sequence[Feature] | None) -> tuple[str, int]:
    if type(final) in BOOSTERS:
        return add_booster(graph, final, tensor, features)
    return add_linear(graph, final, tensor)


def _link(final: Any, task: Task) -> Link:
    if (type(final) in CLASSIFIERS) != (task != "regression"):
        raise NotExportable(final, f"it does not fit the task {task!r}")
    if type(final) not in BOOSTERS:
        return {"binary": "logit", "multiclass": "softmax", "regression": "identity"}[task]  # type: ignore[return-value]
    name = type(final._loss.link).__name__
    if name not in _LINKS:
        raise NotExportable(final, f"its loss {final.loss!r} has a link without an exact form")
    return _LINKS[name]


def _classes(final: Any, task: Task) -> list[Label]:
    if task == "regression":
        return []
    classes = [_label(label) for label in np.asarray(final.classes_).tolist()]
    if task == "binary" and classes != [0, 1]:
        raise NotExportable(final, f"its classes are {classes}; a binary target is 0 or 1, false or true")
    if task == "multiclass" and len(classes) < 3:
        raise NotExportable(final, f"it has {len(classes)} classes; two are the task 'binary', one is none")
    return classes


def _label(label: Any) -> Label:
    if isinstance(label, float):
        return int(label) if label.is_integer() else str(label)
    return label if isinstance(label, bool | int) else str(label)
