"""Rows as JSON: what numpy, pandas and datetime bring becomes what the predictor reads.

Missing values (NaN, NaT, NA) become null; times become ISO 8601 in UTC, and one without a zone is in UTC. An infinity
is refused here, for JSON has no word for it, and null would say that the value is missing.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from esteira.exceptions import Problem
from esteira_cli.client.errors import PredictorRefused, tell

MAX_ROWS = 1000
MAX_BYTES = 4 << 20
"""What the predictor reads in one request."""
_FRAME = 64
"""Bytes around the rows of a body, at most."""


class Unsayable(Exception):
    """A value has no form in JSON; the message says why."""


class Body(msgspec.Struct, frozen=True):
    """One request's body, and where its rows stand among all that the client was given."""

    data: bytes
    offset: int
    rows: int


def bodies(name: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Body]:
    """Cuts rows into bodies `{"<name>": […]}` that the predictor reads; one row alone may still be too large.

    Raises:
        PredictorRefused: a value cannot be said in JSON; named by its path. The rows beside it are looked at too.
    """
    taken: list[bytes] = []
    size, offset = _FRAME, 0
    for data in _encoded(name, rows):
        if taken and (len(taken) == MAX_ROWS or size + len(data) + 1 > MAX_BYTES):
            yield _body(name, taken, offset)
            offset, taken, size = offset + len(taken), [], _FRAME
        taken.append(data)
        size += len(data) + 1
    if taken:
        yield _body(name, taken, offset)


def _encoded(name: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    problems: list[Problem] = []
    for position, row in enumerate(rows):
        try:
            data = encode(row)
        except Unsayable:
            problems += _problems(f"{name}[{position}]", row)
        else:
            if not problems:
                yield data
        if problems and position % MAX_ROWS == MAX_ROWS - 1:
            break
    if problems:
        raise PredictorRefused(f"cannot be sent as JSON: {tell(problems)}", problems)


def _problems(path: str, row: object) -> list[Problem]:
    if not isinstance(row, Mapping):
        return [Problem(path, f"expected an object of columns, got {type(row).__name__}")]
    found = []
    for key, value in row.items():
        try:
            encode(value)
        except Unsayable as error:
            found.append(Problem(f"{path}.{str(key).encode(errors='replace').decode()}", str(error)))
    return found or [Problem(path, "a column's name is no text")]


def _body(name: str, taken: list[bytes], offset: int) -> Body:
    return Body(b'{"%b":[%b]}' % (name.encode(), b",".join(taken)), offset, len(taken))


def encode(value: Any) -> bytes:
    """The JSON of a value.

    Raises:
        Unsayable: it, or something in it, has none.
    """
    try:
        return _text(value).encode()
    except UnicodeEncodeError as error:
        raise Unsayable("holds bytes that are not UTF-8, or half a surrogate pair") from error
    except RecursionError as error:
        raise Unsayable("is nested too deeply") from error


def _text(value: Any) -> str:
    try:
        return _ENCODER.encode(value)
    except (ValueError, TypeError):  # NaN, which is a float to the encoder; or what has no form
        return _ENCODER.encode(_cleaned(value))


def _cleaned(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_key(key): _cleaned(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(inner) for inner in value]
    return plain(value)


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise Unsayable(f"has a key that is no text but {type(key).__name__}")
    return key


def plain(value: Any) -> Any:
    """What JSON has for one value that is no list and no object.

    Raises:
        Unsayable: nothing.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, datetime):
        return _moment(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return _number(float(value))
    if isinstance(value, UUID):
        return str(value)
    return _foreign(value)


def _number(value: float) -> float | None:
    if math.isinf(value):
        raise Unsayable(f"is {value}, which JSON cannot say")
    return None if math.isnan(value) else float(value)


def _moment(value: datetime) -> str | None:
    if value != value:  # NaT is a datetime that is not itself
        return None
    if hasattr(value, "to_pydatetime"):
        value = value.to_pydatetime(warn=False)
    try:
        moment = value.astimezone(UTC) if value.tzinfo else value
    except OverflowError as error:
        raise Unsayable(f"is {value}, which lies outside the years of UTC") from error
    return moment.replace(tzinfo=None).isoformat() + "Z"


def _foreign(value: Any) -> Any:
    """Scalars of numpy and pandas, without importing either."""
    kind = type(value)
    if kind.__name__ in ("NAType", "NaTType"):
        return None
    if kind.__name__ == "datetime64":
        value = value.astype("datetime64[us]")
    if kind.__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        item = value.item()
        if type(item) is not kind and not isinstance(item, bytes | complex):
            return plain(item)
    raise Unsayable(f"is of type {kind.__name__}, which has no form in JSON")


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=plain)
