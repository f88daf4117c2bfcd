"""What the pipelines of a running stack did last, asked of the services themselves."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from esteira_cli.stack.loopback import get_json
from esteira_cli.stack.stack import Stack

NEWEST = 5
PARTS = {"ingestions": "etl", "runs": "trainer", "promotions": "trainer"}
"""What is asked about a pipeline, and of which service."""
RAW = "raw/"


def overview(stack: Stack) -> dict[str, Any]:
    """Collects, for each pipeline, its newest ingestions and training runs, its champion, and what is tried out.

    Files that were uploaded for a pipeline that does not exist are in `unknown_pipelines`, by the name they gave. A
    service that does not answer costs its own part alone; `notes` says which.
    """
    where = stack.addresses()
    names = _pipelines(stack.blueprint().pipelines_dir)
    strangers = [name for name in _uploaded_for(stack) if name not in names]
    parts = {(name, part): service for name in names for part, service in PARTS.items()}
    parts |= {(name, "ingestions"): "etl" for name in strangers}
    answers = _ask({key: f"{where[service]}/pipelines/{quote(key[0])}/{key[1]}" for key, service in parts.items()})
    emulator = get_json(f"{where['pubsub-http']}/status")
    return {
        "pipelines": {name: _pipeline(name, answers) for name in names},
        "unknown_pipelines": {name: _rows(answers[name, "ingestions"])[:NEWEST] for name in strangers},
        "dead_lettered": dead_lettered(emulator),
        "notes": _notes(answers, emulator),
    }


def dead_lettered(emulator: Any) -> dict[str, int]:
    """Counts the messages that wait in dead-letter subscriptions, by subscription."""
    listed = emulator.get("subscriptions", {}) if isinstance(emulator, dict) else {}
    counts = {_short(name): int(counters["outstanding"]) for name, counters in listed.items()}
    return {name: count for name, count in counts.items() if name.endswith(".dead") and count}


def _ask(questions: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], Any]:
    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip(questions, pool.map(get_json, questions.values()), strict=True))


def _pipeline(name: str, answers: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    promotions = sorted(_rows(answers[name, "promotions"]), key=lambda row: -int(row.get("generation", 0)))
    return {
        "champion": next(filter(_is_whole, promotions), None),
        "champion_known": answers[name, "promotions"] is not None,
        "trial": next((row for row in promotions[:1] if not _is_whole(row)), None),
        "ingestions": _rows(answers[name, "ingestions"])[:NEWEST],
        "runs": _rows(answers[name, "runs"])[:NEWEST],
    }


def _is_whole(promotion: Mapping[str, Any]) -> bool:
    return bool(promotion.get("share", 1) == 1)


def _rows(answer: Any) -> list[dict[str, Any]]:
    """The list of an answer, bare or under the one key that it has."""
    if isinstance(answer, dict):
        answer = next((value for value in answer.values() if isinstance(value, list)), [])
    return answer if isinstance(answer, list) else []


def _notes(answers: Mapping[tuple[str, str], Any], emulator: Any) -> list[str]:
    silent = {PARTS[part] for (_, part), answer in answers.items() if answer is None}
    if emulator is None:
        silent.add("pubsub")
    return [f"{name} does not answer: what it knows is missing here" for name in sorted(silent)]


def _pipelines(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/pipeline.yaml"))


def _uploaded_for(stack: Stack) -> list[str]:
    """The folders below `raw/`, which should be names of pipelines."""
    bucket = f"{stack.addresses()['bucket']}/storage/v1/b/{stack.blueprint().options.bucket}"
    listed = get_json(f"{bucket}/o?prefix={quote(RAW, safe='')}&delimiter=%2F&fields=prefixes")
    found = listed.get("prefixes") if isinstance(listed, dict) else None
    return sorted(str(prefix).removeprefix(RAW).removesuffix("/") for prefix in found or [] if prefix != f"{RAW}/")


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]
