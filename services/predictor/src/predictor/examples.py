"""The example rows of a release as clients are shown them: without values of columns that are not always logged."""

import math

import msgspec

from esteira.exceptions import BadInput, PipelineInvalid
from esteira.release import Example, Release
from esteira.runtime import ReleaseRuntime
from esteira.schema import Column, check_row

_INT64 = 2**63


def show_release(runtime: ReleaseRuntime) -> Release:
    """The release with other example rows and their scores; a row of which no feature can be made is left out."""
    release = runtime.release
    rows = neutral_rows(release)
    if rows == release.example:
        return release
    scored = [(row, score) for row in rows if (score := _score(runtime, row)) is not None]
    shown = {"example": [row for row, _ in scored], "example_scores": [score for _, score in scored]}
    return msgspec.structs.replace(release, **shown)


def neutral_rows(release: Release) -> list[Example]:
    """The example rows with a neutral value in every column that has a rule of the log."""
    hidden = {
        column.name: neutral_value(column) for column in release.columns if column.name in release.redaction.columns
    }
    return [{name: hidden.get(name, value) for name, value in row.items()} for row in release.example]


def neutral_value(column: Column) -> int | float | str | bool | None:
    """A value that the column's rules take, and that says nothing."""
    if column.nullable:
        return None
    if column.type == "string":
        fitting = [value for value in column.values or ["x"[: column.max_length]] if len(value) <= column.max_length]
        return fitting[0] if fitting else None
    low = -math.inf if column.min is None else column.min
    high = math.inf if column.max is None else column.max
    if column.type == "number":
        return float(min(max(0, low), high))
    if column.type == "integer":
        return int(min(max(0, math.ceil(max(low, -_INT64))), math.floor(min(high, _INT64 - 1))))
    if column.type == "boolean":
        return False
    return "2000-01-01" if column.type == "date" else "2000-01-01T00:00:00Z"


def _score(runtime: ReleaseRuntime, row: Example) -> float | None:
    typed, problems = check_row(runtime.release.columns, row, "example")
    if problems:
        return None
    try:
        (score,) = runtime.score_rows(runtime.feature_rows([tuple(typed.values())])).tolist()
    except (BadInput, PipelineInvalid):
        return None
    return float(score) if math.isfinite(score) else None
