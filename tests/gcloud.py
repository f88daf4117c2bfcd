"""gcloud in tests: its own linter, a fake that remembers, and where pages and workflows use it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from pages import ROOT, fences, find_pages

GCLOUD = shutil.which("gcloud")
FAKE = ROOT / "tests" / "fake_gcloud.py"
_CONTINUED = re.compile(r"\s*\\\n\s*")
_BOUNDARY = re.compile(r"\s(?:&&|\|\||\||;|>|2>|<)\s|[;)]\s*$")
_VARIABLE = re.compile(r"\$\{\{.*?\}\}|\$\{[^}]*\}|\$\w+|\$\(.*?\)")


def lint(commands: Iterable[str], folder: Path) -> dict[str, str]:
    """What the installed gcloud finds wrong, by command; one process for all, without login and network.

    Args:
        commands: each begins with `gcloud`.
        folder: an empty one for gcloud's configuration and the list.
    """
    assert GCLOUD, "gcloud is not installed"
    listed = sorted(set(commands))
    file = folder / "commands.json"
    file.write_text(json.dumps([{"command_string": text, "id": number} for number, text in enumerate(listed, 1)]))
    answer = subprocess.run(
        [GCLOUD, "meta", "lint-gcloud-commands", f"--commands-file={file}", "--serialize"],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "CLOUDSDK_CONFIG": str(folder / "gcloud")},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, list[dict[str, Any]]] = json.loads(answer.stdout)
    assert len(found) == len(listed), f"gcloud looked at {len(found)} of {len(listed)} commands"
    return {
        one["command_string"]: one["error_message"] for many in found.values() for one in many if not one["success"]
    }


def install_fake(folder: Path) -> dict[str, str]:
    """Puts a fake gcloud into `folder`; gives the environment in which it is the one that is found."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    program = programs / "gcloud"
    program.write_text(f"#!{sys.executable} -IS\n{FAKE.read_text()}")
    program.chmod(0o755)
    (folder / "state").mkdir()
    return {
        "PATH": f"{programs}:/usr/bin:/bin",
        "HOME": str(folder),
        "PYTHON": sys.executable,
        "RETRY_SECONDS": "0",
        "FAKE_GCLOUD_STATE": str(folder / "state"),
        "FAKE_GCLOUD_LOG": str(folder / "log"),
    }


def recorded(folder: Path) -> list[list[str]]:
    """The arguments of every call of the fake so far."""
    log = folder / "log"
    return [line.split("\x1f") for line in log.read_text().split("\n")[:-1]] if log.exists() else []


def in_pages() -> dict[str, str]:
    """Command → the page of Markdown that shows it in a block of commands."""
    found = {}
    for page in find_pages():
        for language in ("console", "bash", "sh"):
            for block in fences(page.read_text("utf-8"), language):
                text = re.sub(r"^\$ ", "", block, flags=re.MULTILINE)
                found |= dict.fromkeys(commands_in(text), str(page.relative_to(ROOT)))
    return found


def in_workflows() -> dict[str, str]:
    """Command → the workflow that runs it."""
    found = {}
    for path in sorted((ROOT / ".github").rglob("*.y*ml")):
        for script in _scripts(yaml.safe_load(path.read_text("utf-8"))):
            found |= dict.fromkeys(commands_in(script), str(path.relative_to(ROOT)))
    return found


def commands_in(script: str) -> Iterator[str]:
    """The gcloud commands of a shell script, each variable and substitution replaced by a value."""
    for line in _CONTINUED.sub(" ", script).splitlines():
        if line.lstrip().startswith("#"):
            continue
        for found in re.finditer(r"(?:^|[\s(\"'`=])(gcloud [a-z].*)", line):
            yield _alone(found[1])


def _alone(text: str) -> str:
    """Cuts off what follows the command in its line."""
    text = _VARIABLE.sub("value", text)
    end = _BOUNDARY.search(text)
    text = text[: end.start()] if end else text
    text = re.sub(r"\)[\"']?(?:\s.*)?$", "", text) if text.count("(") < text.count(")") else text
    return text.strip()


def _scripts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "run" and isinstance(value, str):
                yield value
            else:
                yield from _scripts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _scripts(value)
