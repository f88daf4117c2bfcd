"""Exact Shapley values by NumPy: how much each feature adds to the raw score of a row.

Two methods, for the two kinds of models that the trainer exports. Both hold nothing but arrays, and both give
contributions in the units of the raw score; `esteira.explanation` reads them from a release.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Final

import msgspec
import numpy as np
import numpy.typing as npt

from esteira.scoring import Array

CHUNK: Final = 1 << 17
"""Numbers worked on at once: a batch stays within the processor's cache, and its memory is bounded."""

Indices = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


class LinearMethod(msgspec.Struct, frozen=True, kw_only=True):
    """A linear model behind imputation, scaling and one-hot encoding, where every prepared column reads one feature.

    A feature contributes its terms minus their mean over the training rows: of a linear model the Shapley value under
    independent features is `coefficient * (x - mean)` (Lundberg and Lee, *A Unified Approach to Interpreting Model
    Predictions*, 2017, corollary 1), summed over the columns that come from the feature. A prepared number is
    `(x - center) / scale`, or `missing` where there is none, held within ± `ceiling` as in the exported model. Where
    nothing is imputed a missing value contributes NaN, and the score is NaN as well.
    """

    ARRAYS: ClassVar[Mapping[str, tuple[type, int]]] = {
        "base": (np.float64, 0),
        "ceiling": (np.float64, 0),
        "number_feature": (np.int32, 1),
        "center": (np.float64, 1),
        "scale": (np.float64, 1),
        "missing": (np.float64, 1),
        "coefficient": (np.float64, 1),
        "code_feature": (np.int32, 1),
        "code_terms": (np.float64, 2),
        "mean": (np.float64, 1),
    }

    base: Array
    """The raw score with every term at its mean."""
    ceiling: Array
    number_feature: Indices
    """By prepared number: the feature that it comes from."""
    center: Array
    scale: Array
    missing: Array
    coefficient: Array
    code_feature: Indices
    code_terms: Array
    """By categorical feature: the term of a missing value, then of each code."""
    mean: Array
    """By feature: of its terms over the training rows."""

    def fits(self, width: int) -> bool:
        """Whether the arrays fit each other and a matrix of `width` columns."""
        parts = (self.center, self.scale, self.missing, self.coefficient)
        return (
            all(len(part) == len(self.number_feature) for part in parts)
            and len(self.code_terms) == len(self.code_feature)
            and self.code_terms.shape[1] > 0
            and len(self.mean) == width
            and bool(self.scale.all())
            and _within(self.number_feature, width)
            and _within(self.code_feature, width)
        )

    def contributions(self, matrix: Array) -> Array:
        """Gives shape (rows, features) for a matrix of that shape."""
        return self.terms(matrix) - self.mean

    def terms(self, matrix: Array) -> Array:
        """What each feature adds to the raw score, shape (rows, features); the mean is not taken off."""
        numbers = matrix[:, self.number_feature]
        with np.errstate(over="ignore"):
            prepared = np.where(np.isnan(numbers), self.missing, (numbers - self.center) / self.scale)
        terms = np.clip(prepared, -self.ceiling, self.ceiling) * self.coefficient
        sums = np.zeros(matrix.shape[::-1])
        np.add.at(sums, self.number_feature, terms.T)
        at = code_positions(matrix[:, self.code_feature], self.code_terms.shape[1])
        np.add.at(sums, self.code_feature, self.code_terms[np.arange(len(self.code_feature)), at].T)
        return np.ascontiguousarray(sums.T)


class TreeMethod(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Boosted trees, by the game of path-dependent TreeSHAP.

    The game: a row falls down a tree by its own values where a split's feature is known, else down both sides,
    weighted by the shares of training rows that went there (Lundberg, Erion and Lee, *Consistent Individualized
    Feature Attribution for Tree Ensembles*, 2018, algorithms 1 and 2). A leaf is reached with the product, over the
    distinct features of its path, of 1 or 0 (known: is the row within what the path asks of the feature?) or of the
    feature's share (unknown). Of such a product the Shapley value of feature i is the integral over t from 0 to 1 of
    `value * (known_i - share_i) * prod_(j != i) (t * known_j + (1 - t) * share_j)` (Owen, *Multilinear Extensions of
    Games*, 1972): a polynomial of degree d - 1 for d features, for which Gauss-Legendre with ceil(d / 2) points is
    exact. It takes the place of algorithm 2's EXTEND and UNWIND, gives the same values, and adds only terms of one
    sign, so that nothing cancels on deep paths.

    Leaves are sorted by the number of distinct features on their paths; `entry_*` list them leaf by leaf. A condition
    is what a path asks of one feature; numbers' come first, then categories'.
    """

    ARRAYS: ClassVar[Mapping[str, tuple[type, int]]] = {
        "base": (np.float64, 0),
        "number_feature": (np.int32, 1),
        "low": (np.float64, 1),
        "high": (np.float64, 1),
        "missing": (np.bool_, 1),
        "code_feature": (np.int32, 1),
        "members": (np.bool_, 2),
        "leaf_value": (np.float64, 1),
        "leaf_size": (np.int32, 1),
        "entry_condition": (np.int32, 1),
        "entry_share": (np.float64, 1),
    }

    base: Array
    """The mean raw score over the training rows' leaves, the baseline included."""
    number_feature: Indices
    low: Array
    """Exclusive; -inf where there is no bound."""
    high: Array
    """Inclusive; +inf where there is no bound."""
    missing: Flags
    """Whether a missing number meets the condition."""
    code_feature: Indices
    members: Flags
    """By condition on a category: whether a missing value meets it, then whether each code does."""
    leaf_value: Array
    leaf_size: Indices
    """The distinct features on the leaf's path, ascending."""
    entry_condition: Indices
    entry_share: Array
    """The share of training rows that met the condition, among those at the splits that ask it."""

    def fits(self, width: int) -> bool:
        """Whether the arrays fit each other and a matrix of `width` columns."""
        numbers, codes = len(self.number_feature), len(self.code_feature)
        return (
            len(self.low) == len(self.high) == len(self.missing) == numbers
            and len(self.members) == codes
            and self.members.shape[1] > 0
            and len(self.leaf_value) == len(self.leaf_size)
            and bool((self.leaf_size >= 0).all() and (np.diff(self.leaf_size) >= 0).all())
            and int(self.leaf_size.sum()) == len(self.entry_condition) == len(self.entry_share)
            and bool(((self.entry_share > 0) & (self.entry_share <= 1)).all())
            and _within(self.number_feature, width)
            and _within(self.code_feature, width)
            and _within(self.entry_condition, numbers + codes)
        )

    def contributions(self, matrix: Array) -> Array:
        """Gives shape (rows, features) for a matrix of that shape."""
        rows = max(1, CHUNK // max([block.cost for block in self._blocks], default=1))
        parts = [self._chunk(matrix[start : start + rows]) for start in range(0, len(matrix), rows)]
        return np.concatenate(parts) if parts else np.zeros(matrix.shape)

    def _chunk(self, matrix: Array) -> Array:
        rows, width = matrix.shape
        met = self._met(matrix)
        values = [block.contributions(met).reshape(rows, -1) for block in self._blocks]
        found = np.concatenate(values, axis=1) if values else np.zeros((rows, 0))
        sums = [np.bincount(self._entry_feature, row, minlength=width) for row in found]
        return np.array(sums, dtype=np.float64).reshape(rows, width)

    def _met(self, matrix: Array) -> Flags:
        """Whether each row meets each condition."""
        numbers = matrix[:, self.number_feature]
        low = np.where(np.isneginf(self.low), np.nan, self.low)
        within = ~(numbers <= low) & (numbers <= self.high)
        met = np.where(np.isnan(numbers), self.missing, within)
        at = code_positions(matrix[:, self.code_feature], self.members.shape[1])
        return np.concatenate([met, self.members[np.arange(len(self.code_feature)), at]], axis=1)

    @cached_property
    def _blocks(self) -> list["Block"]:
        return list(self._make_blocks())

    def _make_blocks(self) -> Iterator["Block"]:
        start = 0
        for size, count in zip(*np.unique(self.leaf_size[self.leaf_size > 0], return_counts=True), strict=True):
            entries = slice(start, start := start + int(size * count))
            values = self.leaf_value[self.leaf_size == size]
            conditions = self.entry_condition[entries].reshape(count, size).T
            yield Block(values, conditions, self.entry_share[entries].reshape(count, size).T)

    @cached_property
    def _entry_feature(self) -> Indices:
        """The feature of each entry, in the order in which the blocks give them."""
        features = np.concatenate([self.number_feature, self.code_feature])
        order = [features[block.conditions].ravel() for block in self._blocks]
        return np.concatenate(order) if order else np.zeros(0, np.int32)


class Block:
    """The leaves with one number of distinct features on their paths, worked on together."""

    def __init__(self, values: Array, conditions: Indices, shares: Array) -> None:
        """Makes the tables; `conditions` and `shares` have the shape (features on the path, leaves)."""
        points, weights = quadrature(len(shares))
        at = points[:, None, None]
        self.conditions = np.ascontiguousarray(conditions)
        self._start = weights[:, None] * values
        self._unmet = (1 - at) * shares
        self._met = self._unmet + at
        self._gain = (1 - shares) / self._met
        self._loss = -1 / (1 - points)
        self.cost = self._met.size

    def contributions(self, met: Flags) -> Array:
        """Gives shape (rows, features on the path, leaves), for conditions met of shape (rows, conditions)."""
        known = met[:, self.conditions]
        reach = np.repeat(self._start[None], len(met), axis=0)
        for slot in range(len(self.conditions)):
            reach *= np.where(known[:, None, slot], self._met[:, slot], self._unmet[:, slot])
        gain = np.einsum("rql,qdl->rdl", reach, self._gain)
        loss = np.einsum("rql,q->rl", reach, self._loss)
        found: Array = np.where(known, gain, loss[:, None])
        return found


@lru_cache
def quadrature(features: int) -> tuple[Array, Array]:
    """Gives points in (0, 1) and weights that integrate a polynomial of degree `features` - 1 exactly."""
    points, weights = np.polynomial.legendre.leggauss((features + 1) // 2)
    return (points + 1) / 2, weights / 2


def code_positions(codes: Array, size: int) -> npt.NDArray[np.intp]:
    """Where each code stands in a list of `size` that begins with the missing value: that one for what is no code."""
    known = (codes >= 0) & (codes < size - 1)
    return np.where(known, codes, -1.0).astype(np.intp) + 1


def _within(indices: npt.NDArray[Any], size: int) -> bool:
    return bool(((indices >= 0) & (indices < size)).all())
