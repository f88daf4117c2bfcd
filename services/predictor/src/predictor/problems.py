"""What is wrong with a request: all of it at once, up to a bound, each thing by its path."""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from esteira.exceptions import BadInput, Problem
from esteira.schema import Column, Row, check_row
from esteira.web import decode_json

MAX_PROBLEMS = 100
"""How many are named; the others are counted."""
_MAX_DIGITS = 400
"""Of an integer; with more it is larger than any number."""
T = TypeVar("T")


def refuse(problems: Sequence[Problem]) -> None:
    """Raises `BadInput` where there are problems; it names the first `MAX_PROBLEMS` of them and counts the others."""
    if problems:
        raise BadInput(list(problems[:MAX_PROBLEMS]), more=max(0, len(problems) - MAX_PROBLEMS))


def check_objects(columns: Sequence[Column], given: list[Any], name: str, inner: str = "") -> list[Row]:
    """Checks objects of columns, each at the path `<name>[<position>]<inner>`.

    Raises:
        BadInput: names every wrong value, up to `MAX_PROBLEMS`, and counts the others.
    """
    rows: list[Row] = []
    problems: list[Problem] = []
    more = 0
    for position, row in enumerate(given):
        typed, found = check_row(columns, row, f"{name}[{position}]{inner}")
        rows.append(typed)
        room = MAX_PROBLEMS - len(problems)
        problems += found[:room]
        more += len(found[room:])
    if problems:
        raise BadInput(problems, more)
    return rows


def decode_rows(body: bytes, kind: type[T], check: Callable[[T], object]) -> T:
    """Decodes a JSON body whose rows the rules check afterwards.

    NaN, infinities, numbers beyond all doubles, half surrogate pairs and bytes that are not UTF-8 are not JSON; some
    clients write them all the same, and they are named by their paths, with all else that is wrong.

    Args:
        body: of the request.
        kind: its form.
        check: raises `BadInput` where the rows of the request break the rules.

    Raises:
        BadInput: the body is not JSON, or not of that form.
    """
    try:
        asked: T = decode_json(body, kind)
    except BadInput as error:
        found: T | None = decode_leniently(body, kind)
        if found is not None:
            explain(check, found)
        raise error from None
    return asked


def decode_leniently(body: bytes, kind: type[T] | Any = Any) -> T | None:
    """Decodes what is JSON but for values that JSON does not have; None where it is not even that.

    Only to name what is wrong: nothing that needs this is ever answered.
    """
    try:
        return msgspec.convert(_load(body.decode(errors="surrogateescape")), kind)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None


def explain(check: Callable[[T], object], found: T) -> None:
    """Lets `check` name what is wrong, in text that can be sent: a key may hold half a surrogate pair.

    Raises:
        BadInput: what `check` raises.
    """
    try:
        check(found)
    except BadInput as error:
        raise BadInput([Problem(_sayable(p.path), _sayable(p.message)) for p in error.problems], error.more) from error


def _load(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer of thousands of digits; only then, for to look at each takes three times as long
        return json.loads(text, parse_int=_integer)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _sayable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
