"""What is wrong with a request: all of it at once, up to a bound, each thing by its path."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import islice
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from esteira.exceptions import BadInput, Problem
from esteira.schema import Column, Row, check_row, show
from esteira.web import decode_json

MAX_PROBLEMS = 100
"""How many are named; the others are counted."""
_MAX_COUNTED = 1000
"""Of others in the form of a body, at most: it may have millions, and to count them takes longer than any answer."""
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
    wrong = _wrong_members(kind, found, "")
    named = [*islice(wrong, MAX_PROBLEMS)]
    refuse(named, sum(1 for _ in islice(wrong, _MAX_COUNTED)))


def _wrong_members(kind: type[msgspec.Struct], found: Any, path: str) -> Iterator[Problem]:
    """What an object, and those in it, lack and have too many, and which words they do not know."""
    fields = _fields(kind)
    told, inner = f"an object of {', '.join(fields)}", f"{path}." if path else ""
    if not isinstance(found, dict):
        yield Problem(path, f"expected {told}, got {show(found)}")
        return
    lacking = [name for name, field in fields.items() if field.required and name not in found]
    yield from (Problem(inner + name, f"missing; send {told}") for name in lacking)
    if kind.__struct_config__.forbid_unknown_fields:
        yield from (Problem(inner + name, f"unknown field; send {told}") for name in found if name not in fields)
    for name, field in fields.items():
        if name in found:
            yield from _wrong_value(field.type, found[name], inner + name)


@cache
def _holds_structs(kind: Any) -> bool:
    if isinstance(kind, UnionType):
        return any(map(_holds_structs, get_args(kind)))
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def _wrong_value(kind: Any, value: Any, path: str) -> Iterator[Problem]:
    """As `_wrong_members`; what has another type altogether is msgspec's to tell."""
    if isinstance(kind, UnionType):
        for one in get_args(kind):
            yield from _wrong_value(one, value, path)
    elif get_origin(kind) is Literal and isinstance(value, str) and value not in get_args(kind):
        yield Problem(path, f"expected one of {', '.join(get_args(kind))}, got {show(value)}")
    elif get_origin(kind) is list and isinstance(value, list):
        (item,) = get_args(kind)
        if not _holds_structs(item):
            return  # millions of values, perhaps, and nothing to say of them
        for at, one in enumerate(value):
            yield from _wrong_value(item, one, f"{path}[{at}]")
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, dict):
        yield from _wrong_members(kind, value, path)


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
