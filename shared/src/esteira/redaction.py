"""What of a prediction is logged in clear, column by column: the rules, and what they make of a value.

The predictor applies them before anything of a prediction leaves it; monitor and replay ask the same rules what was
withheld, so that what was not logged is not taken for missing.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec

STRICTER = ("always", "sampled", "hashed", "never")
"""From the rule that withholds nothing on."""
HASHED = "sha256:"
_DIGITS = 16
_SPACE = 2**64


class ColumnRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one column, raw or a feature, is logged."""

    log: Literal["always", "sampled", "hashed", "never"]
    """`hashed`: as the beginning of a SHA-256, by which equal values stay equal. Whoever can list the possible values
    finds out which it is: it hides no number and no name from who guesses. `sampled`: for a share of predictions."""
    sample: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    """The share of predictions, for `sampled` alone."""

    def is_clear(self, prediction: object) -> bool:
        """Whether the value is logged as it is for the prediction of that id."""
        return self.log == "always" or (self.log == "sampled" and is_drawn(prediction, self.sample or 0))

    def apply(self, name: str, value: Any, prediction: object) -> Any:
        """What is logged of the column's value; None for nothing."""
        if value is None or self.is_clear(prediction):
            return value
        return hash_value(name, value) if self.log == "hashed" else None


class Redaction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a release withholds from its log; rules that withhold nothing are left out."""

    columns: dict[str, ColumnRule] = {}
    """Of raw rows that are kept for replay."""
    features: dict[str, ColumnRule] = {}
    """Those that derive from such columns among them."""

    def has_clear_row(self, prediction: object) -> bool:
        """Whether the raw row is logged as the client sent it."""
        return all(rule.is_clear(prediction) for rule in self.columns.values())

    def has_clear_features(self, prediction: object) -> bool:
        """Whether all features are logged as they are."""
        return all(rule.is_clear(prediction) for rule in self.features.values())


NOTHING = Redaction()
"""Of releases without rules."""


def strictest(rules: Iterable[ColumnRule]) -> ColumnRule | None:
    """The rule that withholds most; None of none."""
    return max(rules, key=lambda rule: (STRICTER.index(rule.log), -(rule.sample or 1.0)), default=None)


def is_drawn(prediction: object, share: float) -> bool:
    """Whether the prediction of that id is of the share: whoever knows the id knows it too.

    All columns draw alike, so that a smaller share is part of a larger one, and few predictions say anything.
    """
    digest = hashlib.sha256(f"logged\0{prediction}".encode()).digest()
    return int.from_bytes(digest[:8]) < share * _SPACE


def hash_value(name: str, value: Any) -> str:
    """What stands for the column's value; equal numbers are equal however they are written."""
    digest = hashlib.sha256(f"{name}\0{_text(value)}".encode()).hexdigest()
    return f"{HASHED}{digest[:_DIGITS]}"


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def resolve(rules: Mapping[str, ColumnRule], columns: Iterable[str], lineage: Mapping[str, Iterable[str]]) -> Redaction:
    """Works out what the rules of a pipeline mean for its columns and features.

    Args:
        rules: by the name of a raw column or a feature; a name that is both means both.
        columns: the raw columns of a request.
        lineage: for each feature the raw columns that it derives from.

    Returns:
        A feature has the strictest rule of its own and of what it derives from; `always` of its own comes before all.
    """
    features = {feature: _of_feature(rules, feature, sources) for feature, sources in lineage.items()}
    own = {column: rules.get(column) for column in columns}
    return Redaction(columns=_withholding(own), features=_withholding(features))


def _of_feature(rules: Mapping[str, ColumnRule], feature: str, sources: Iterable[str]) -> ColumnRule | None:
    own = rules.get(feature)
    if own is not None and own.log == "always":
        return own
    return strictest(rules[name] for name in {feature, *sources} if name in rules)


def _withholding(rules: Mapping[str, ColumnRule | None]) -> dict[str, ColumnRule]:
    return {name: rule for name, rule in rules.items() if rule is not None and rule.log != "always"}
