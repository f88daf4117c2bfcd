"""Reference profiles: how the values of each feature, and the scores, were spread where the champion was measured.

A profile holds bins and counts. A numeric feature has bins between quantiles of the reference data; a categorical one
has a bin for each frequent category and one for all others; missing values have a bin of their own, always the last.
Monitor counts live values into the same bins.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

Values = Sequence[Any] | npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

NUMERIC_BINS = 10
MAX_CATEGORIES = 50
SCORE = "score"


class Binning(msgspec.Struct, frozen=True, kw_only=True):
    """How one feature's values fall into bins, and how many of the reference rows fell into each."""

    name: str
    kind: Literal["numeric", "categorical"]
    edges: list[float] = []
    """Numeric: ascending; a value v is in bin i where edges[i-1] <= v < edges[i]."""
    categories: list[str] = []
    """Categorical: the frequent ones, one bin each; the bin after them holds all others."""
    counts: list[int]

    @property
    def bins(self) -> int:
        """The number of bins, with the one for missing values."""
        return (len(self.edges) if self.kind == "numeric" else len(self.categories)) + 2

    def indices(self, values: Values) -> Indices:
        """The bin of each value, shape (rows,); None and NaN are missing."""
        if self.kind == "numeric":
            return _numeric_indices(np.asarray(self.edges), _floats(values))
        codes = {category: code for code, category in enumerate(self.categories)}
        other = len(self.categories)
        missing = other + 1
        return np.array([missing if v is None or v != v else codes.get(str(v), other) for v in values], dtype=np.int64)

    def count(self, values: Values) -> Indices:
        """How many of the values fall into each bin, shape (bins,)."""
        return np.bincount(self.indices(values), minlength=self.bins)

    def label(self, index: int) -> str:
        """What a person calls the bin at `index`."""
        if index == self.bins - 1:
            return "missing"
        if self.kind == "categorical":
            return self.categories[index] if index < len(self.categories) else "other"
        low = f"{self.edges[index - 1]:g}" if index else "-∞"
        high = f"{self.edges[index]:g}" if index < len(self.edges) else "∞"
        return f"[{low}, {high})"


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a release's profile.json."""

    features: list[Binning]
    """In the order of the release's features."""
    score: Binning
    rows: int


def describe_numeric(name: str, values: Values) -> Binning:
    """Bins a numeric feature between its reference deciles."""
    numbers = _floats(values)
    present = numbers[np.isfinite(numbers)]
    quantiles = np.quantile(present, np.linspace(0, 1, NUMERIC_BINS + 1)[1:-1]) if len(present) else np.array([])
    edges = np.unique(quantiles)
    counts = np.bincount(_numeric_indices(edges, numbers), minlength=len(edges) + 2)
    return Binning(name=name, kind="numeric", edges=edges.tolist(), counts=counts.tolist())


def describe_categorical(name: str, values: Values) -> Binning:
    """Gives each of the most frequent categories its bin."""
    counted = Counter(str(value) for value in values if value is not None and value == value)
    frequent = sorted(category for category, _ in counted.most_common(MAX_CATEGORIES))
    empty = Binning(name=name, kind="categorical", categories=frequent, counts=[])
    return msgspec.structs.replace(empty, counts=empty.count(values).tolist())


def _floats(values: Values) -> npt.NDArray[np.float64]:
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
        return values.astype(np.float64)
    return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)


def _numeric_indices(edges: npt.NDArray[np.float64], numbers: npt.NDArray[np.float64]) -> Indices:
    indices = np.searchsorted(edges, numbers, side="right").astype(np.int64)
    indices[np.isnan(numbers)] = len(edges) + 1
    return indices
