"""Fields of CSV as JSON values: CSV has no types, so a text is read as what its column holds.

Files and bodies that ask for predictions are read here; etl says the same of files that train in SQL (`etl.validate`).
"""

import math
import re
from collections.abc import Collection

from esteira.schema import ColumnType

NULL_VALUES = ("", "NA")
"""Texts that mean a missing value, where a pipeline names no others."""
TRUE, FALSE = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")
"""Texts of a boolean, in lower case; a file may write them in any."""
WHOLE_FORM = r"[+-]?[0-9]+(\.0*)?"
NUMBER_FORM = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
"""As JSON writes a number, with `+`, leading zeros and a bare point allowed besides."""
_WHOLE = re.compile(WHOLE_FORM, re.ASCII)
_NUMBER = re.compile(NUMBER_FORM, re.ASCII)


def from_text(kind: ColumnType, text: str, null_values: Collection[str]) -> int | float | str | bool | None:
    """The JSON form of a field; what does not fit stays text, and the rule of its column refuses it."""
    if text in null_values:
        return None
    if kind == "boolean":
        return text.lower() in TRUE if text.lower() in TRUE + FALSE else text
    return _number(kind, text) if kind in ("integer", "number") else text


def _number(kind: ColumnType, text: str) -> int | float | str:
    """An integer may have a decimal point, as pandas writes a column where some are missing."""
    try:
        if kind == "integer" and _WHOLE.fullmatch(text):
            return int(text.partition(".")[0])
        number = float(text) if _NUMBER.fullmatch(text) else math.inf
    except ValueError:  # thousands of digits
        return text
    return number if math.isfinite(number) else text
