"""Rows that come as text: CSV with or without a header, and JSON lines."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from esteira.exceptions import BadInput, Problem
from esteira.fields import from_text
from esteira.release import Release
from esteira.web import decode_json
from predictor.decoding import MAX_ROWS
from predictor.dialects.answering import check_rows
from predictor.dialects.rows import Locate, Rows, check_names, column_names, column_types, read_records
from predictor.problems import decode_leniently, explain, refuse

Record = tuple[int, list[str]]
"""The number of a record's last line, from 1, and its fields."""


def read_csv(release: Release, body: bytes) -> Rows:
    """Reads CSV: a field has the value that it has in a file that trains.

    The first line is a header where most of its fields are names of columns; a header's first field may be empty, for
    the index that pandas writes. Without a header the fields are the raw columns in the order of the schema.

    Raises:
        BadInput: it is not CSV in UTF-8, or a line has not one field for each column.
    """
    records = _records(body)
    if not records:
        raise BadInput([Problem("", "the body holds no rows; send CSV with or without a header")])
    line, first = records[0]
    skipped = 1 if first[0] == "" else 0
    names = column_names(release)
    if _is_header(release, first[skipped:]):
        names, records = first[skipped:], records[1:]
    else:
        skipped = 0
    kind, misnamed = check_names(release, names, [f"line {line}"] * len(names), f"line {line}")
    expected = f"expected {len(names)}: {', '.join(names)}"
    wrong = [
        Problem(f"line {number}", f"holds {len(fields) - skipped} fields, {expected}")
        for number, fields in records
        if len(fields) - skipped != len(names)
    ]
    if wrong:
        refuse([*misnamed, *wrong])
    types = column_types(release, kind)
    rows = [
        {
            name: from_text(types[name], text, release.null_values)
            for name, text in zip(names, fields[skipped:], strict=True)
            if name in types
        }
        for _, fields in records
    ]
    return Rows(rows=rows, kind=kind, path="", locate=_in_lines([number for number, _ in records]), misnamed=misnamed)


def read_json_lines(release: Release, body: bytes) -> Rows:
    """Reads one row a line: an object of columns, or an array of the raw columns in the order of the schema.

    Raises:
        BadInput: lines are not JSON; each is named, or the values in it that JSON does not have.
    """
    lines = [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
    _limit(len(lines))
    rows: list[Any] = []
    problems: list[Problem] = []
    for number, line in lines:
        try:
            rows.append(decode_json(line))
        except BadInput as error:
            problems.append(Problem(f"line {number}", str(error)))
            rows.append(decode_leniently(line))
    locate = _in_lines([number for number, _ in lines])
    if problems and None not in rows:
        explain(lambda found: check_rows(release, read_records(release, found, "", locate)), rows)
    refuse(problems)
    return read_records(release, rows, "", locate)


def _records(body: bytes) -> list[Record]:
    try:
        reader = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        records = [(reader.line_num, fields) for fields in reader if fields]
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise BadInput([Problem(f"line {line}", "is not UTF-8")]) from error
    except csv.Error as error:
        raise BadInput([Problem(f"line {reader.line_num}", f"is not CSV: {error}")]) from error
    _limit(len(records) - 1)  # one of them may be a header
    return records


def _limit(rows: int) -> None:
    if rows > MAX_ROWS:
        raise BadInput([Problem("", f"holds {rows} rows; send 1 to {MAX_ROWS}")])


def _is_header(release: Release, fields: Sequence[str]) -> bool:
    """Most, not all: a name that is wrong is then told as one, not its line as wrong values."""
    names = {column.name for column in release.columns} | {feature.name for feature in release.features}
    return sum(field in names for field in fields) * 2 > len(fields)


def _in_lines(numbers: Sequence[int]) -> Locate:
    return lambda at, name: f"line {numbers[at]}" if name is None else f"line {numbers[at]}, column {name}"
