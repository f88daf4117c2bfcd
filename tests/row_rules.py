"""The rules of rows and their columns: what a request or a file may lack, and what it may not have.

As `value_rules`, of which this is the other half: where it is not one value that is wrong.
"""

from typing import Literal

import msgspec

from value_rules import GOOD

TAKEN = "taken"
ALL = ", ".join(GOOD)
FILE = "the file is refused: "


class ColumnCase(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of rows with a column too many or too few."""

    name: str
    change: Literal["add", "drop", "twice"]
    column: str
    rows: str
    """What a request says whose rows bring names of their own; `TAKEN`."""
    columns: str
    """Where names belong to all rows: columns, tensors, dataframe_split, CSV with a header."""
    etl: str
    """What etl says of the header of a file that trains."""
    predict: str
    """What `esteira predict` says of the columns of a file."""


class RowCase(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a row that has not the form of one."""

    name: str
    row: str
    """In JSON."""
    native: str
    others: str
    """In dialects where an array stands for the columns in the order of the schema."""
    csv: str
    """The line of a CSV file that comes next to it."""
    of_csv: str
    """In a CSV body."""
    etl: str
    """In a file."""


COLUMNS = [
    ColumnCase(
        name="an unknown column",
        change="add",
        column="colour",
        rows="unknown column; remove it",
        columns="unknown column 'colour'; remove it",
        etl="the header has unknown column 'colour' (remove them, or declare them in pipeline.yaml)",
        predict=TAKEN,
    ),
    ColumnCase(
        name="a column that is known only afterwards",
        change="add",
        column="outcome",
        rows="unknown column; remove it",
        columns="unknown column 'outcome'; remove it",
        etl=TAKEN,
        predict=TAKEN,
    ),
    ColumnCase(
        name="a required column is missing",
        change="drop",
        column="units",
        rows="missing; expected integer",
        columns="column 'units' is missing",
        etl="the header lacks column 'units' (add them; their values may be missing where pipeline.yaml says nullable)",
        predict="the header lacks units; every row needs a value there",
    ),
    ColumnCase(
        name="a nullable column is missing",
        change="drop",
        column="count",
        rows=TAKEN,
        columns=TAKEN,
        etl="the header lacks column 'count' (add them; their values may be missing where pipeline.yaml says nullable)",
        predict=TAKEN,
    ),
    ColumnCase(
        name="a column is there twice",
        change="twice",
        column="count",
        rows=TAKEN,  # of JSON's keys the last counts
        columns="column 'count' is there twice",
        etl="the header repeats column 'count' (rename or remove one of each)",
        predict="the header repeats count",
    ),
]
ROWS = [
    RowCase(
        name="a row that is no object",
        row="3",
        native="expected an object of columns, got 3",
        others="expected an object of columns, got 3",
        csv="3",
        of_csv=f"holds 1 fields, expected {len(GOOD)}: {ALL}",
        etl=f"line: expected {len(GOOD) + 1} fields, got 1",
    ),
    RowCase(
        name="null for a row",
        row="null",
        native="expected an object of columns, got null",
        others="expected an object of columns, got null",
        csv="",
        of_csv=TAKEN,  # blank lines are none
        etl=TAKEN,
    ),
    RowCase(
        name="an array of some values",
        row="[1, 2]",
        native="expected an object of columns, got an array",
        others=f"holds 2 values, expected {len(GOOD)}: {ALL}",
        csv="1,2",
        of_csv=f"holds 2 fields, expected {len(GOOD)}: {ALL}",
        etl=f"line: expected {len(GOOD) + 1} fields, got 2",
    ),
    RowCase(
        name="a line that is not CSV",
        row="[",
        native="is not JSON: ",
        others="is not JSON: ",
        csv='a"b,',
        of_csv="holds 2 fields, expected",
        etl="line: a quote is opened and not closed",
    ),
]
