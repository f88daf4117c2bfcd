"""Reading Markdown: what tests need to hold pages against the code."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def find_pages() -> list[Path]:
    """Every Markdown file of the repository; what tools install or write is left out."""
    return sorted(
        path
        for path in ROOT.rglob("*.md")
        if not any(part.startswith(".") or part in ("node_modules", "build", "dist") for part in path.parts)
    )


def read(name: str) -> str:
    """The text of a file of the repository."""
    return (ROOT / name).read_text("utf-8")


def section(text: str, *titles: str) -> str:
    """What stands below the first heading among `titles`, down to the next one of its level."""
    for title in titles:
        found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", text, re.MULTILINE | re.DOTALL)
        if found:
            return found[2]
    raise AssertionError(f"no section {' or '.join(titles)}")


def fences(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def code(text: str) -> Iterator[str]:
    """Fenced blocks of commands, and inline code."""
    yield from fences(text, "console")
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def table_rows(text: str) -> list[list[str]]:
    """The cells of all table rows but heads' rules."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not re.fullmatch(r"[|\- ]+", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def ticked(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)
