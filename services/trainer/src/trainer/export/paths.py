"""What the path to each leaf asks of a row, merged by feature."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from esteira.attribution import Indices
from esteira.schema import Feature
from trainer.export.trees import MEMBER, Column, Split, read_split


class Interval(msgspec.Struct, frozen=True):
    """What a path asks of a number."""

    feature: int
    low: float = -np.inf
    """Exclusive, unless it is infinite."""
    high: float = np.inf
    """Inclusive."""
    missing: bool = True


class Members(msgspec.Struct, frozen=True):
    """What a path asks of a category."""

    feature: int
    flags: bytes
    """Whether a missing value is asked for, then whether each code is; one byte each."""


Condition = Interval | Members


class Leaf(msgspec.Struct, frozen=True):
    """A leaf, with one condition for each feature on its path, and the share of training rows that met it."""

    value: float
    conditions: tuple[int, ...]
    """As `Conditions` numbers them."""
    shares: tuple[float, ...]


Path = Mapping[int, tuple[Condition, float]]
"""By feature: the condition so far, and the product of the shares of rows at its splits."""


class Conditions:
    """The distinct conditions of an ensemble, numbered as they come."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = features
        self._numbers: dict[Condition, int] = {}

    def number(self, condition: Condition) -> int:
        """Gives the condition's number."""
        return self._numbers.setdefault(condition, len(self._numbers))

    def anything(self, feature: int) -> Condition:
        """The condition that every value of the feature meets."""
        if self._features[feature].kind == "numeric":
            return Interval(feature)
        return Members(feature, b"\1" * (1 + len(self._features[feature].categories)))

    def positions(self, numbers: Iterable[int]) -> Indices:
        """Gives where the conditions of these numbers stand in `arrays`: numbers' first, then categories'."""
        categorical = np.array([isinstance(condition, Members) for condition in self._numbers], dtype=bool)
        places = np.argsort(np.argsort(categorical, kind="stable"), kind="stable").astype(np.int32)
        return places[np.fromiter(numbers, dtype=np.int64)]

    def arrays(self) -> dict[str, Any]:
        """Gives them as `TreeMethod` holds them."""
        intervals = [condition for condition in self._numbers if isinstance(condition, Interval)]
        members = [condition for condition in self._numbers if isinstance(condition, Members)]
        flags = np.zeros((len(members), max((len(one.flags) for one in members), default=1)), dtype=np.bool_)
        for row, one in zip(flags, members, strict=True):
            row[: len(one.flags)] = np.frombuffer(one.flags, dtype=np.bool_)
        return {
            "number_feature": np.array([one.feature for one in intervals], dtype=np.int32),
            "low": np.array([one.low for one in intervals], dtype=np.float64),
            "high": np.array([one.high for one in intervals], dtype=np.float64),
            "missing": np.array([one.missing for one in intervals], dtype=np.bool_),
            "code_feature": np.array([one.feature for one in members], dtype=np.int32),
            "members": flags,
        }


def find_leaves(predictor: Any, columns: Sequence[Column], conditions: Conditions) -> Iterator[Leaf]:
    """Walks one fitted tree from its root to each leaf."""
    nodes = predictor.nodes
    waiting: list[tuple[int, Path]] = [(0, {})]
    while waiting:
        at, path = waiting.pop()
        node = nodes[at]
        if node["is_leaf"]:
            yield _leaf(float(node["value"]), path, conditions)
            continue
        split = read_split(node, columns, predictor.raw_left_cat_bitsets)
        for child, left in ((int(node["right"]), False), (int(node["left"]), True)):
            share = float(nodes[child]["count"]) / float(node["count"])
            waiting.append((child, _follow(path, split, share, conditions, left=left)))


def _leaf(value: float, path: Path, conditions: Conditions) -> Leaf:
    numbers = tuple(conditions.number(condition) for condition, _ in path.values())
    return Leaf(value, numbers, tuple(share for _, share in path.values()))


def _follow(path: Path, split: Split, share: float, conditions: Conditions, *, left: bool) -> Path:
    condition, before = path.get(split.feature, (conditions.anything(split.feature), 1.0))
    if isinstance(condition, Members):
        narrow: Condition = _narrow_members(condition, split, left=left)
    else:
        narrow = _narrow_interval(condition, split, left=left)
    return {**path, split.feature: (narrow, before * share)}


def _narrow_interval(condition: Interval, split: Split, *, left: bool) -> Interval:
    missing = condition.missing and split.missing == left
    if left:
        return Interval(condition.feature, condition.low, min(condition.high, split.threshold), missing)
    return Interval(condition.feature, max(condition.low, split.threshold), condition.high, missing)


def _narrow_members(condition: Members, split: Split, *, left: bool) -> Members:
    flags = np.frombuffer(condition.flags, dtype=np.bool_)
    codes = np.arange(len(flags) - 1)
    true = np.isin(codes, split.members) if split.mode == MEMBER else codes <= split.threshold
    true = np.concatenate([[split.missing], true])
    return Members(condition.feature, (flags & (true == left)).tobytes())
