"""Writes the tables of docs/values.md from the rules that tests run: `python tests/value_tables.py`."""

import json
import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any

from pages import ROOT
from row_rules import COLUMNS, ROWS
from value_rules import BOOLEANS, INTEGERS, MISSING, NUMBERS, PIPELINE, STRINGS, TIMES, Absent, Case, Outcome, Refused

PAGE = ROOT / "docs" / "values.md"
SHOWN = 32


def tables() -> dict[str, str]:
    """What stands between the marks of the page, by name."""
    values = {
        "missing": MISSING,
        "integers": INTEGERS,
        "numbers": NUMBERS,
        "strings": STRINGS,
        "booleans": BOOLEANS,
        "times": TIMES,
    }
    columns = [[c.name, code(c.column), c.rows, c.columns, c.etl, c.predict] for c in COLUMNS]
    rows = [[r.name, code(r.row), r.native, r.others, code(r.csv), r.of_csv, r.etl] for r in ROWS]
    return {
        "columns declared": f"```yaml\n{PIPELINE[PIPELINE.index('null_values') :]}```\n",
        **{name: table(VALUE_HEAD, map(value_line, cases)) for name, cases in values.items()},
        "columns": table(COLUMN_HEAD, columns),
        "rows": table(ROW_HEAD, rows),
    }


VALUE_HEAD = ["what", "column", "JSON", "becomes", "CSV", "becomes", "Parquet, Python"]
COLUMN_HEAD = ["what", "column", "rows with names of their own", "names for all rows", "etl", "`esteira predict`"]
ROW_HEAD = ["what", "JSON", "native", "dialects", "CSV", "CSV body", "etl"]


def value_line(case: Case) -> list[str]:
    """One line; what is as in JSON is not said again."""
    csv, of_csv = (
        (f"— {case.csv.why}", "") if isinstance(case.csv, Absent) else (code(case.csv) or "(empty)", words(case.of_csv))
    )
    parquet = (
        f"— {case.parquet.why}" if case.parquet else "" if case.of_parquet == case.becomes else words(case.of_parquet)
    )
    same = "" if of_csv == words(case.becomes) else of_csv
    return [case.name, code(case.column), code(case.json), words(case.becomes), csv, same, parquet]


def words(outcome: Outcome) -> str:
    """What becomes of a value."""
    if isinstance(outcome, Refused):
        return f"refused: {outcome.what}"
    if outcome is None:
        return "missing"
    return code(moment(outcome) if isinstance(outcome, date) else json.dumps(outcome, ensure_ascii=False))


def moment(value: Any) -> str:
    """A time in UTC, or a day."""
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)


def code(text: str) -> str:
    """Text as it is written; long text by its beginning."""
    shown = text if len(text) <= SHOWN else f"{text[:8]}…"
    told = shown.replace("\n", "⏎").replace("\0", "␀").replace("|", "\\|")
    more = f" ({len(text)} characters)" if len(text) > SHOWN and text[:8] == text[1:9] else ""
    return f"`{told}`{more}" if told else ""


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def marked(name: str, text: str) -> str:
    """A part of the page that this module writes."""
    return f"<!-- {name} -->\n\n{text}\n<!-- end -->"


def main() -> None:
    """Writes them."""
    page = PAGE.read_text("utf-8")
    for name, text in tables().items():
        parts = re.compile(rf"<!-- {name} -->.*?<!-- end -->", re.DOTALL)
        page = marked(name, text).join(parts.split(page))
    PAGE.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
