"""Rows as the dialects bring them: records, arrays, columns; read into objects of columns, each with its place."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from esteira.exceptions import BadInput, Problem
from esteira.release import Release
from esteira.schema import Column, ColumnType
from predictor.problems import refuse

Kind = Literal["rows", "features"]
Locate = Callable[[int, str | None], str]
"""The place of a row by its position, or of one column's value in it, as the dialect names it."""


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """Rows to predict for, and how the dialect that brought them names their places."""

    rows: list[Any]
    kind: Kind
    path: str
    """Where the rows stand in the request, all of them."""
    locate: Locate
    misnamed: list[Problem] = []
    """What is wrong with names of columns that stand once for all rows."""


def choose_kind(release: Release, keys: Iterable[Collection[str]]) -> Kind:
    """Tells whether a request brings raw rows or features, which no other dialect than the native one says.

    Rows whose keys are all raw columns and include every column that may not be missing are `rows`; else, where all
    keys are features, they are `features`; else `rows`, so that the errors name the columns.

    Args:
        release: has the columns and the features.
        keys: the names that each row has a value under.
    """
    columns, features = set(column_names(release)), {feature.name for feature in release.features}
    needed = set(required_names(release))
    distinct = {frozenset(names) for names in keys}
    if all(names <= columns and needed <= names for names in distinct):
        return "rows"
    return "features" if all(names and names <= features for names in distinct) else "rows"


def request_columns(release: Release) -> list[Column]:
    """The raw columns that a request may bring, in the order of the schema."""
    return [column for column in release.columns if column.known == "before"]


def column_names(release: Release) -> list[str]:
    """Their names."""
    return [column.name for column in request_columns(release)]


def required_names(release: Release) -> list[str]:
    """The raw columns that a request must bring."""
    return [column.name for column in request_columns(release) if not column.nullable]


def column_types(release: Release, kind: Kind) -> dict[str, ColumnType]:
    """The type of each raw column, or of each feature, by name."""
    if kind == "rows":
        return {column.name: column.type for column in release.columns}
    return {feature.name: "number" if feature.kind == "numeric" else "string" for feature in release.features}


def read_records(release: Release, given: Any, path: str, locate: Locate | None = None) -> Rows:
    """Reads a list of objects of columns; an array stands for the raw columns in the order of the schema.

    Raises:
        BadInput: it is no list, or an array has not one value for each column.
    """
    if not isinstance(given, list):
        raise BadInput([Problem(path, "expected an array of rows, each an object of columns")])
    locate = locate or _in_rows(path)
    names = column_names(release)
    rows = [dict(zip(names, row, strict=False)) if isinstance(row, list) else row for row in given]
    refuse(_wrong_lengths(names, given, locate))
    kind = choose_kind(release, (row.keys() for row in rows if isinstance(row, dict)))
    return Rows(rows=rows, kind=kind, path=path, locate=locate)


def read_table(release: Release, names: Sequence[str], data: Sequence[Any], path: str, places: Sequence[str]) -> Rows:
    """Reads arrays of values under the names of their columns.

    Args:
        release: has the columns and the features.
        names: the column of each value.
        data: the rows, an array each.
        path: where `data` stands in the request.
        places: where each name stands.

    Raises:
        BadInput: a row has not one value for each name.
    """
    kind, misnamed = check_names(release, names, places, path)
    if wrong := _wrong_lengths(names, data, _in_rows(path), others=True):
        refuse([*misnamed, *wrong])
    rows = [dict(zip(names, row, strict=True)) for row in data]
    return Rows(rows=rows, kind=kind, path=path, locate=_in_rows(path), misnamed=misnamed)


def read_columns(release: Release, given: Mapping[str, Any], path: str) -> Rows:
    """Reads an object of columns with an array of values each.

    Raises:
        BadInput: a column is no array, or longer than others.
    """
    kind, misnamed = check_names(release, list(given), [f"{path}.{name}" for name in given], path)
    wrong = [Problem(f"{path}.{n}", "expected an array of values") for n, v in given.items() if type(v) is not list]
    if not wrong and len({len(values) for values in given.values()}) > 1:
        told = ", ".join(f"{name} {len(values)}" for name, values in given.items())
        wrong = [Problem(path, f"the columns have different numbers of values: {told}")]
    if wrong:
        refuse([*misnamed, *wrong])

    def locate(at: int, name: str | None) -> str:
        return f"{path}.{name}[{at}]" if name else path

    return Rows(rows=transpose(given), kind=kind, path=path, locate=locate, misnamed=misnamed)


def transpose(columns: Mapping[str, Sequence[Any]]) -> list[Any]:
    """Rows of columns of the same length."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def check_names(
    release: Release, names: Sequence[str], places: Sequence[str], whole: str
) -> tuple[Kind, list[Problem]]:
    """Holds the names of columns against the schema, once for all rows.

    Args:
        release: has the columns and the features.
        names: as the request has them.
        places: where each of them stands.
        whole: the place to name where one is missing.

    Returns:
        What the columns are, see `choose_kind`; and the names that are unknown, there twice, or missing.
    """
    kind = choose_kind(release, [names])
    features = [feature.name for feature in release.features]
    known, needed = (column_names(release), required_names(release)) if kind == "rows" else (features, [])
    problems = [
        Problem(
            place, f"unknown column {name!r}; remove it" if name not in known else f"column {name!r} is there twice"
        )
        for at, (name, place) in enumerate(zip(names, places, strict=True))
        if name not in known or name in names[:at]
    ]
    problems += [Problem(whole, f"column {name!r} is missing") for name in needed if name not in names]
    return kind, problems


def _in_rows(path: str) -> Locate:
    return lambda at, name: f"{path}[{at}]" if name is None else f"{path}[{at}].{name}"


def _wrong_lengths(names: Sequence[str], rows: Sequence[Any], locate: Locate, others: bool = False) -> list[Problem]:
    """Arrays that have not one value for each name; `others` also names what is no array."""
    expected = f"expected {len(names)}: {', '.join(names)}"
    return [
        Problem(locate(at, None), f"holds {len(row)} values, {expected}" if isinstance(row, list) else "is no array")
        for at, row in enumerate(rows)
        if (len(row) != len(names) if isinstance(row, list) else others)
    ]
