"""Rows that look for a difference where ordinary rows would not meet one."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from esteira.schema import Feature
from esteira.scoring import Array
from trainer.export.model import BOOSTERS, split_steps
from trainer.export.trees import thresholds

SAMPLE: Final = 200
SPREADS: Final = 1e6
_SMALLEST: Final = 5e-324
_LARGEST: Final = float(np.finfo(np.float64).max)
_ZEROS: Final = (0.0, -0.0, _SMALLEST, -_SMALLEST, 2.2250738585072014e-308)


def stress_rows(matrix: Array, features: Sequence[Feature], seed: int, estimator: Any = None) -> Array:
    """Makes rows from `matrix` with missing values, every category, extremes and values around the thresholds.

    Each probing value stands in an otherwise real row. Unseen categories are missing values to a matrix; codes of the
    list that training did not see are among the probes.

    Args:
        matrix: real rows as the encoder makes them, at least one.
        features: the matrix's columns.
        seed: of the choice of rows; the same seed gives the same rows.
        estimator: where it is histogram boosting, its thresholds and their neighbours are probed (`SAMPLE` of each
            feature), and the largest doubles and infinities; a linear model refuses those.
    """
    generator = np.random.default_rng(seed)
    boosted = estimator is not None and _reads_matrix(estimator)
    splits = thresholds(split_steps(estimator)[1]) if boosted else {}
    parts = [_with_missing(matrix, generator)]
    for index, feature in enumerate(features):
        chosen = _sample(splits.get(index, np.empty(0)), generator)
        values = np.array([np.nan, *_probes(feature, matrix[:, index], chosen, boosted=boosted)])
        rows = _draw(matrix, len(values), generator)
        rows[:, index] = values
        parts.append(rows)
    return np.concatenate(parts)


def _reads_matrix(estimator: Any) -> bool:
    steps, final = split_steps(estimator)
    return not steps and type(final) in BOOSTERS


def _draw(matrix: Array, count: int, generator: np.random.Generator) -> Array:
    return matrix[generator.integers(len(matrix), size=count)].copy()


def _sample(values: Array, generator: np.random.Generator) -> Array:
    return values if len(values) <= SAMPLE else generator.choice(values, SAMPLE, replace=False)


def _with_missing(matrix: Array, generator: np.random.Generator) -> Array:
    """Gives real rows with a third of the values taken out, and one row with none left."""
    rows = _draw(matrix, SAMPLE, generator)
    rows[generator.random(rows.shape) < 1 / 3] = np.nan
    rows[0] = np.nan
    return rows


def _probes(feature: Feature, column: Array, splits: Array, *, boosted: bool) -> Iterator[float]:
    if feature.kind == "categorical":
        yield from map(float, range(len(feature.categories)))
        return
    yield from _ZEROS
    present = column[np.isfinite(column)]
    if present.size:
        yield from _edges(float(present.min()), float(present.max()))
    for value in splits:
        yield from (float(value), float(np.nextafter(value, -np.inf)), float(np.nextafter(value, np.inf)))
    if boosted:
        yield from (_LARGEST, -_LARGEST, np.inf, -np.inf)


def _edges(low: float, high: float) -> Iterator[float]:
    yield from (low, high, float(np.nextafter(low, -np.inf)), float(np.nextafter(high, np.inf)))
    reach = SPREADS * max(high - low, abs(high), abs(low))
    if np.isfinite(reach):
        yield from (high + reach, low - reach)
