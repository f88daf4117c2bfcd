"""The services know pipelines by their folders alone: the reference pipeline is one among others."""

import re
from collections.abc import Iterator
from pathlib import Path

from esteira.pipeline import load_pipeline

ROOT = Path(__file__).parents[2]
MEMBERS = ("services", "kernel", "shared", "cli/src")
REFERENCE = ROOT / "pipelines" / "flights"
WORD = re.compile(rf"\b{REFERENCE.name}\b", re.IGNORECASE)
DEMO = ("cli/src/esteira_cli/demo/command.py", f'default="pipelines/{REFERENCE.name}",')
"""`esteira demo` plays the reference pipeline unless told otherwise."""
GENERATED = re.compile(r"/__pycache__/|\.egg-info/|/build/|/dist/")


def test_only_the_demos_default_names_the_reference_pipeline() -> None:
    found = {(path, line.strip()) for path, line in _lines() if WORD.search(line)}
    assert found == {DEMO}


def test_no_source_names_the_reference_pipelines_columns() -> None:
    columns = [column.name for column in load_pipeline(REFERENCE).columns]
    telling = [name for name in columns if "_" in name or name in ("tailnum", "carrier")]
    assert len(telling) > 5
    pattern = re.compile(rf"\b({'|'.join(telling)})\b")
    assert {(path, line.strip()) for path, line in _lines() if path.endswith(".py") and pattern.search(line)} == set()


def _lines() -> Iterator[tuple[str, str]]:
    for path in _files():
        name = path.relative_to(ROOT).as_posix()
        for line in path.read_text("utf-8", errors="replace").splitlines():
            yield name, line


def _files() -> Iterator[Path]:
    files = [path for member in MEMBERS for path in (ROOT / member).rglob("*") if path.is_file()]
    assert len(files) > 100
    return (path for path in files if not GENERATED.search(path.as_posix()))
