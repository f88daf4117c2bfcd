"""Which feature each prepared column of a linear pipeline reads, and how.

Every step that `trainer.export.linear` exports works column by column, so a prepared column is a function of one
feature: a scaled number, or a value for each code of a category.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from esteira.schema import Feature
from esteira.scoring import Array
from trainer.export.graph import NotExplainable
from trainer.export.linear import chosen_columns


class Number(msgspec.Struct, frozen=True):
    """A column that is `(x - center) / scale` of a number x, or `missing`; NaN where nothing is imputed."""

    feature: int
    center: float = 0.0
    scale: float = 1.0
    missing: float = np.nan

    def fill(self, statistic: float) -> "Number":
        """Puts the value that stands for a missing one."""
        return msgspec.structs.replace(self, missing=statistic) if np.isnan(self.missing) else self

    def rescale(self, mean: float, deviation: float) -> "Number":
        """Takes `mean` off and divides by `deviation`."""
        center, scale = self.center + mean * self.scale, self.scale * deviation
        return Number(self.feature, center, scale, (self.missing - mean) / deviation)


class Code(msgspec.Struct, frozen=True):
    """A column that has a value for a missing category, then one for each code."""

    feature: int
    values: Array

    def fill(self, statistic: float) -> "Code":
        """Puts the value that stands for a missing one."""
        return Code(self.feature, np.where(np.isnan(self.values), statistic, self.values))

    def rescale(self, mean: float, deviation: float) -> "Code":
        """Takes `mean` off and divides by `deviation`."""
        return Code(self.feature, (self.values - mean) / deviation)

    def mark(self, category: float) -> "Code":
        """Gives 1 where the column has the category, which may be NaN, and 0 elsewhere."""
        same = np.isnan(self.values) if np.isnan(category) else self.values == category
        return Code(self.feature, same.astype(np.float64))


Prepared = Number | Code


def trace(steps: Sequence[Any], features: Sequence[Feature]) -> list[Prepared]:
    """Follows the matrix's columns through fitted steps that `export_model` exports.

    Raises:
        NotExplainable: a number is spread into categories.
    """
    columns = [_column(index, feature) for index, feature in enumerate(features)]
    for step in steps:
        columns = _transform(step, columns)
    return columns


def _column(index: int, feature: Feature) -> Prepared:
    if feature.kind == "numeric":
        return Number(index)
    return Code(index, np.array([np.nan, *range(len(feature.categories))]))


def _transform(transformer: Any, columns: list[Prepared]) -> list[Prepared]:
    if transformer in ("passthrough", None):
        return columns
    return _TRANSFORMERS[type(transformer)](transformer, columns)


def _through_pipeline(pipeline: Pipeline, columns: list[Prepared]) -> list[Prepared]:
    for _, step in pipeline.steps:
        columns = _transform(step, columns)
    return columns


def _through_columns(transformer: ColumnTransformer, columns: list[Prepared]) -> list[Prepared]:
    found = []
    for part, indices in chosen_columns(transformer, len(columns)):
        found += _transform(part, [columns[index] for index in indices])
    return found


def _unchanged(_: FunctionTransformer, columns: list[Prepared]) -> list[Prepared]:
    return columns


def _impute(imputer: SimpleImputer, columns: list[Prepared]) -> list[Prepared]:
    return [column.fill(float(value)) for column, value in zip(columns, imputer.statistics_, strict=True)]


def _scale(scaler: StandardScaler, columns: list[Prepared]) -> list[Prepared]:
    means = scaler.mean_ if scaler.with_mean and scaler.mean_ is not None else np.zeros(len(columns))
    deviations = scaler.scale_ if scaler.with_std and scaler.scale_ is not None else np.ones(len(columns))
    return [c.rescale(float(m), float(d)) for c, m, d in zip(columns, means, deviations, strict=True)]


def _spread(encoder: OneHotEncoder, columns: list[Prepared]) -> list[Prepared]:
    found: list[Prepared] = []
    for column, categories in zip(columns, encoder.categories_, strict=True):
        if isinstance(column, Number):
            raise NotExplainable(encoder, "it spreads a number into categories, which is not explained")
        found += [column.mark(float(category)) for category in categories]
    return found


_TRANSFORMERS: Final[dict[type, Callable[[Any, list[Prepared]], list[Prepared]]]] = {
    Pipeline: _through_pipeline,
    ColumnTransformer: _through_columns,
    FunctionTransformer: _unchanged,
    SimpleImputer: _impute,
    StandardScaler: _scale,
    OneHotEncoder: _spread,
}
