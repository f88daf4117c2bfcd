"""What the pipelines of a running stack did last, asked of the services themselves."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from esteira_cli.stack.loopback import get_json
from esteira_cli.stack.stack import Stack

NEWEST = 5


def overview(stack: Stack) -> dict[str, Any]:
    """Collects, for each pipeline, its newest ingestions and training runs and its champion.

    A service that does not answer costs its own part alone; `notes` says which.
    """
    where = stack.addresses()
    names = _pipelines(stack.blueprint().pipelines_dir)
    questions = {
        (name, part): f"{where[service]}/pipelines/{name}/{part}"
        for name in names
        for service, part in (("etl", "ingestions"), ("trainer", "runs"), ("trainer", "promotions"))
    }
    answers = _ask(questions)
    emulator = get_json(f"{where['pubsub-http']}/status")
    return {
        "pipelines": {name: _pipeline(name, answers) for name in names},
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
    promotions = _rows(answers[name, "promotions"])
    return {
        "champion": max(promotions, key=lambda row: int(row.get("generation", 0)), default=None),
        "ingestions": _rows(answers[name, "ingestions"])[:NEWEST],
        "runs": _rows(answers[name, "runs"])[:NEWEST],
    }


def _rows(answer: Any) -> list[dict[str, Any]]:
    """The list of an answer, bare or under the one key that it has."""
    if isinstance(answer, dict):
        answer = next((value for value in answer.values() if isinstance(value, list)), [])
    return answer if isinstance(answer, list) else []


def _notes(answers: Mapping[tuple[str, str], Any], emulator: Any) -> list[str]:
    silent = {"etl" if part == "ingestions" else "trainer" for (_, part), answer in answers.items() if answer is None}
    if emulator is None:
        silent.add("pubsub")
    return [f"{name} does not answer: what it knows is missing here" for name in sorted(silent)]


def _pipelines(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/pipeline.yaml"))


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]
