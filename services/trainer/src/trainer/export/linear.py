"""Preparation steps and linear models as plain ONNX operators, in double precision.

The preparation is bit-equal to scikit-learn: one subtraction, division or comparison per value. The product with the
coefficients is not: BLAS orders its additions by batch size, thread count and processor, in scikit-learn as well.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import TensorProto
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from trainer.export.graph import Graph, NotExportable

CEILING: Final = 1e100
"""Values are held within ± this before the product: nothing measured comes near, and the sum cannot overflow to NaN."""

Tensor = tuple[str, int]
"""A tensor's name and its width."""


def add_linear(graph: Graph, model: Any, tensor: str) -> Tensor:
    """Adds the decision function of a fitted linear model that reads `tensor`."""
    coefficients = np.atleast_2d(model.coef_)
    intercept = np.broadcast_to(np.asarray(model.intercept_, dtype=np.float64), len(coefficients))
    bounded = graph.add("Clip", tensor, graph.constant(-CEILING), graph.constant(CEILING))
    product = graph.add("MatMul", bounded, graph.constant(coefficients.T))
    return graph.add("Add", product, graph.constant(intercept)), len(coefficients)


def add_transformer(graph: Graph, transformer: Any, tensor: Tensor) -> Tensor:
    """Adds a fitted transformer.

    Raises:
        NotExportable: there is no exact form for it, or for one of its settings.
    """
    if transformer in ("passthrough", None):
        return tensor
    try:
        add = _TRANSFORMERS[type(transformer)]
    except KeyError:
        raise NotExportable(transformer, "there is no exact form for this transformer") from None
    return add(graph, transformer, tensor)


def _add_pipeline(graph: Graph, pipeline: Pipeline, tensor: Tensor) -> Tensor:
    for _, step in pipeline.steps:
        tensor = add_transformer(graph, step, tensor)
    return tensor


def _add_columns(graph: Graph, transformer: ColumnTransformer, tensor: Tensor) -> Tensor:
    name, width = tensor
    parts = []
    for part, indices in chosen_columns(transformer, width):
        parts.append(add_transformer(graph, part, (graph.take(name, indices), len(indices))))
    if not parts:
        raise NotExportable(transformer, "it keeps no column")
    return graph.add("Concat", *(part for part, _ in parts), axis=1), sum(size for _, size in parts)


def chosen_columns(transformer: ColumnTransformer, width: int) -> Iterator[tuple[Any, list[int]]]:
    """Gives each part of the transformer that keeps columns, with their positions in a matrix of `width` columns."""
    for _, part, columns in transformer.transformers_:
        if isinstance(part, str) and part == "drop":
            continue
        if indices := _indices(transformer, columns, width):
            yield part, indices


def _indices(transformer: ColumnTransformer, columns: Any, width: int) -> list[int]:
    chosen = np.asarray(columns) if isinstance(columns, list) else columns
    if isinstance(chosen, np.ndarray) and chosen.size == 0:
        return []
    if not isinstance(chosen, slice) and np.asarray(chosen).dtype.kind not in "iub":
        raise NotExportable(transformer, f"its columns {columns!r} are no positions in the matrix; select by index")
    indices: list[int] = np.atleast_1d(np.arange(width)[chosen]).tolist()
    return indices


def _add_identity(_: Graph, transformer: FunctionTransformer, tensor: Tensor) -> Tensor:
    """Passes on: a `ColumnTransformer` keeps "passthrough" as a `FunctionTransformer` without a function."""
    if transformer.func is not None:
        raise NotExportable(transformer, "it calls a function of Python")
    return tensor


def _add_imputer(graph: Graph, imputer: SimpleImputer, tensor: Tensor) -> Tensor:
    name, width = tensor
    statistics = np.asarray(imputer.statistics_)
    if imputer.add_indicator or not _is_nan(imputer.missing_values):
        raise NotExportable(imputer, "set missing_values=nan and add_indicator=False")
    if statistics.dtype.kind not in "fiu" or np.isnan(statistics.astype(np.float64)).any():
        raise NotExportable(imputer, "a column has nothing to impute from; set keep_empty_features=True")
    filled = graph.add("Where", graph.add("IsNaN", name), graph.constant(statistics), name)
    return filled, width


def _add_scaler(graph: Graph, scaler: StandardScaler, tensor: Tensor) -> Tensor:
    name, width = tensor
    if scaler.with_mean and scaler.mean_ is not None:
        name = graph.add("Sub", name, graph.constant(scaler.mean_))
    if scaler.with_std and scaler.scale_ is not None:
        name = graph.add("Div", name, graph.constant(scaler.scale_))
    return name, width


def _add_one_hot(graph: Graph, encoder: OneHotEncoder, tensor: Tensor) -> Tensor:
    if encoder.drop is not None or encoder.min_frequency is not None or encoder.max_categories is not None:
        raise NotExportable(encoder, "leave drop, min_frequency and max_categories unset")
    if encoder.handle_unknown != "ignore":
        raise NotExportable(encoder, "set handle_unknown='ignore'")
    categories = np.concatenate(encoder.categories_).astype(np.float64)
    sources = [index for index, known in enumerate(encoder.categories_) for _ in known]
    spread = graph.take(tensor[0], sources)
    equal = graph.add("Cast", graph.add("Equal", spread, graph.constant(categories)), to=TensorProto.DOUBLE)
    missing = graph.constant(np.isnan(categories))
    return graph.add("Where", graph.add("IsNaN", spread), missing, equal), len(sources)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and np.isnan(value)


_TRANSFORMERS: Final[dict[type, Callable[[Graph, Any, Tensor], Tensor]]] = {
    Pipeline: _add_pipeline,
    ColumnTransformer: _add_columns,
    FunctionTransformer: _add_identity,
    SimpleImputer: _add_imputer,
    StandardScaler: _add_scaler,
    OneHotEncoder: _add_one_hot,
}


def magnitude(model: Any, prepared: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sums the absolute terms of each row's decision function, the scale of its rounding error.

    Any order of n additions stays within n rounding units of this sum (Higham, *Accuracy and Stability of Numerical
    Algorithms*, 2002, section 4.2).

    Returns:
        Shape (rows,): the largest over the outputs.
    """
    coefficients = np.abs(np.atleast_2d(model.coef_))
    terms = np.abs(prepared) @ coefficients.T + np.abs(model.intercept_)
    largest: npt.NDArray[np.float64] = terms.max(axis=1)
    return largest
