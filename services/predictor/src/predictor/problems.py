"""What is wrong with a request: all of it at once, up to a bound, each thing by its path."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from esteira.exceptions import BadInput, Problem
from esteira.schema import Column, Row, check_row, show
from esteira.web import decode_json

MAX_PROBLEMS = 100
"""How many are named; the others are counted."""
_MAX_DIGITS = 400
"""Of an integer; with more it is larger than any number."""
S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")


def refuse(problems: Sequence[Problem], more: int = 0) -> None:
    """Raises `BadInput` where there are problems; it names the first `MAX_PROBLEMS` of them and counts the others.

    Args:
        problems: what is wrong, in the order of the request.
        more: how many there are besides.
    """
    if problems:
        raise BadInput(list(problems[:MAX_PROBLEMS]), more + max(0, len(problems) - MAX_PROBLEMS))


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


def decode_rows(body: bytes, kind: type[S], check: Callable[[S], object]) -> S:
    """Decodes a JSON body whose rows the rules check afterwards.

    NaN, infinities, numbers beyond all doubles, half surrogate pairs and bytes that are not UTF-8 are not JSON; some
    clients write them all the same, and they are named by their paths, with all else that is wrong.

    Args:
        body: of the request.
        kind: its form; who sends another, such as a bare row, is told what it has.
        check: raises `BadInput` where the rows of the request break the rules.

    Raises:
        BadInput: the body is not JSON, or not of that form.
    """
    try:
        asked: S = decode_json(body, kind)
    except BadInput as error:
        found = decode_leniently(body)
        if found is not None:
            explain(partial(_check_members, kind), found)
        if (read := _convert(found, kind)) is not None:
            explain(check, read)
        raise error from None
    return asked


def _check_members(kind: type[msgspec.Struct], found: Any) -> None:
    fields = {field.encode_name: field.required for field in msgspec.structs.fields(kind)}
    told = f"an object of {', '.join(fields)}"
    if not isinstance(found, dict):
        raise BadInput([Problem("", f"expected {told}, got {show(found)}")])
    wrong = [Problem(name, f"missing; send {told}") for name, needed in fields.items() if needed and name not in found]
    if kind.__struct_config__.forbid_unknown_fields:
        wrong += [Problem(name, f"unknown field; send {told}") for name in found if name not in fields]
    refuse(wrong)


def _convert(found: Any, kind: type[S]) -> S | None:
    try:
        return msgspec.convert(found, kind)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None


def decode_leniently(body: bytes) -> Any:
    """Decodes what is JSON but for values that JSON does not have; None where it is not even that.

    Only to name what is wrong: nothing that needs this is ever answered.
    """
    try:
        return _load(body.decode(errors="surrogateescape"))
    except (ValueError, RecursionError):
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
