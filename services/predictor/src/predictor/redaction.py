"""Takes out of predictions what their release withholds, before anything of them is logged."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from esteira.redaction import Redaction
from esteira.release import Release


class Redactor:
    """Applies the rules of one release; threads may share it."""

    def __init__(self, redaction: Redaction, features: Sequence[str]) -> None:
        self._redaction = redaction
        self._rules = [
            (at, name, redaction.features[name]) for at, name in enumerate(features) if name in redaction.features
        ]

    def redact_features(self, ids: Sequence[str], rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """The features of each prediction, with None for what is not logged."""
        return [self._features(id_, row) for id_, row in zip(ids, rows, strict=True)]

    def redact_rows(
        self, ids: Sequence[str], sampled: Mapping[int, dict[str, Any]], features: Sequence[Sequence[Any]]
    ) -> dict[int, dict[str, Any]]:
        """Raw rows that are kept, without what is not logged; those of no use for replay are not kept at all.

        A row that lacks a column is replayed from its features: all of them must be logged, as they are. What is not
        finite is logged as missing, and would be scored as such.
        """
        return {
            at: self._row(ids[at], row)
            for at, row in sampled.items()
            if self._redaction.has_clear_row(ids[at])
            or (self._redaction.has_clear_features(ids[at]) and _are_finite(features[at]))
        }

    def _features(self, id_: str, row: Sequence[Any]) -> Sequence[Any]:
        values = list(row)
        for at, name, rule in self._rules:
            values[at] = rule.apply(name, values[at], id_)
        return values

    def _row(self, id_: str, row: Mapping[str, Any]) -> dict[str, Any]:
        kept = dict(row)
        for name, rule in self._redaction.columns.items():
            if kept.get(name) is not None and (value := rule.apply(name, kept[name], id_)) is not None:
                kept[name] = value
            elif not rule.is_clear(id_):
                kept.pop(name, None)
        return kept


def make_redactor(release: Release) -> Redactor | None:
    """None where the release logs everything as it is."""
    if not release.redaction.columns and not release.redaction.features:
        return None
    return Redactor(release.redaction, [feature.name for feature in release.features])


def _are_finite(features: Sequence[Any]) -> bool:
    return all(not isinstance(value, float) or math.isfinite(value) for value in features)
