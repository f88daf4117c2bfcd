"""Request bodies decoded by a type that is compiled once for each release.

It takes only what `esteira.schema` takes, and gives the same values; whatever it does not take is read again by the
rules themselves, which name every wrong value. So nothing here explains errors, and a body that is refused costs little
more than it did without.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from esteira.schema import MAX_STRING, Column, Feature, Refused, Value, check_value

MAX_ROWS = 1000
_INT64 = 2**63
_UNNAMEABLE = ('"', "\\", *map(chr, range(32)))
"""What a compiled field name cannot hold."""
_BAD_TEXT = (b"\\u0000", b"\\ud", b"\\uD")
"""A body with NUL or surrogates in escapes is left to the rules."""


class Body(msgspec.Struct, frozen=True):
    """A request body whose values are all right: raw rows in the order of the columns, or features in theirs."""

    rows: list[tuple[Value, ...]] | None = None
    features: list[tuple[float | str | None, ...]] | None = None
    explain: bool = False
    """Whether every answer is to say what each feature contributes."""

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.rows if self.rows is not None else self.features or [])

    def part(self, start: int, end: int) -> "Body":
        """Some of the rows."""
        part = slice(start, end)
        if self.rows is not None:
            return Body(rows=self.rows[part])
        return Body(features=(self.features or [])[part])


class BodyDecoder:
    """Decodes the bodies of requests to one release.

    Args:
        columns: the raw columns that a request may bring.
        features: the features that it may bring instead.
    """

    def __init__(self, columns: Sequence[Column], features: Sequence[Feature]) -> None:
        before = [column for column in columns if column.known == "before"]
        self._decoder = _compile(before, features)
        self._moments = [(at, column) for at, column in enumerate(before) if column.type in ("timestamp", "date")]

    def decode(self, body: bytes) -> Body | None:
        """The body's values; None where it is to be read by the rules."""
        if self._decoder is None or (b"\\" in body and any(text in body for text in _BAD_TEXT)):
            return None
        try:
            found = self._decoder.decode(body)
            if (found.rows is msgspec.UNSET) == (found.features is msgspec.UNSET):
                return None
            if not 1 <= len(found.features if found.rows is msgspec.UNSET else found.rows) <= MAX_ROWS:
                return None
            if found.rows is msgspec.UNSET:
                return Body(features=[msgspec.structs.astuple(row) for row in found.features], explain=found.explain)
            rows = [*map(msgspec.structs.astuple, found.rows)]
            return Body([self._typed(row) for row in rows] if self._moments else rows, explain=found.explain)
        except (msgspec.MsgspecError, Refused, UnicodeDecodeError, RecursionError):
            return None

    def _typed(self, row: tuple[Any, ...]) -> tuple[Value, ...]:
        """Times and dates come as text."""
        values = list(row)
        for position, column in self._moments:
            values[position] = check_value(column, values[position])
        return tuple(values)


def _compile(columns: Sequence[Column], features: Sequence[Feature]) -> "msgspec.json.Decoder[Any] | None":
    names = [*(column.name for column in columns), *(feature.name for feature in features)]
    if any(text in name for name in names for text in _UNNAMEABLE):
        return None
    row = _struct("Row", [(c.name, _type(c), c.nullable) for c in columns])
    kinds: dict[str, Any] = {
        "numeric": float | None,
        "categorical": Annotated[str, msgspec.Meta(max_length=MAX_STRING)] | None,
    }
    given = _struct("Features", [(f.name, kinds[f.kind], True) for f in features])
    body = msgspec.defstruct(
        "Request",
        [
            ("rows", list[row] | msgspec.UnsetType, msgspec.UNSET),  # type: ignore[valid-type]
            ("features", list[given] | msgspec.UnsetType, msgspec.UNSET),  # type: ignore[valid-type]
            ("explain", bool, False),
        ],
        forbid_unknown_fields=True,
        gc=False,
    )
    return msgspec.json.Decoder(body)


def _struct(name: str, fields: Sequence[tuple[str, Any, bool]]) -> type[msgspec.Struct]:
    """A type of these fields, some of them optional, in this order whatever their names are."""
    short = {f"f{position}": field for position, field in enumerate(fields)}
    return msgspec.defstruct(
        name,
        [(key, kind, None) if optional else (key, kind) for key, (_, kind, optional) in short.items()],
        rename={key: name for key, (name, _, _) in short.items()},
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )


def _type(column: Column) -> Any:
    kind = _plain_type(column)
    return kind | None if column.nullable else kind


def _plain_type(column: Column) -> Any:
    if column.type == "integer":
        low = -_INT64 if column.min is None else max(-_INT64, math.ceil(column.min))
        high = _INT64 - 1 if column.max is None else min(_INT64 - 1, math.floor(column.max))
        return Annotated[int, msgspec.Meta(ge=low, le=high)]
    if column.type == "number":
        return Annotated[float, msgspec.Meta(ge=column.min, le=column.max)]
    if column.type == "string" and column.values is not None:
        return Literal[tuple(v for v in column.values if len(v) <= column.max_length) or ("\0",)]
    if column.type == "string":
        return Annotated[str, msgspec.Meta(max_length=column.max_length)]
    return bool if column.type == "boolean" else str
