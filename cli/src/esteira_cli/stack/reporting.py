"""What `esteira up`, `down` and `status` show on the terminal."""

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from esteira_cli.stack.stack import ComponentState
from esteira_cli.stack.starter import Report

COLOURS = {
    "healthy": "green",
    "kept": "green",
    "done": "green",
    "stopped": "green",
    "unhealthy": "yellow",
    "moved": "yellow",
    "waiting": "yellow",
    "failed": "red",
    "down": "red",
}
TIMESTAMP = re.compile(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?(Z|\+00:00)$")
INGESTION = ("object", "status", "rows", "accepted", "quarantined", "reasons", "reason", "finished_at")
RUN = ("number", "status", "release_version", "reason", "verdict", "finished_at")
WIDE = 400
BUSY = ("starting", "stopping", "waiting")


def console() -> Console:
    """Where everything is shown; wide enough for names and reasons in full where there is no terminal."""
    shown = Console()
    return shown if shown.is_terminal else Console(width=max(shown.width, WIDE))


@contextmanager
def progress() -> Iterator[Report]:
    """Shows what begins and ends: one live line for each part on a terminal, plain lines elsewhere."""
    shown = console()
    if not shown.is_terminal:
        yield _plain(shown)
        return
    board = _Board()
    with Live(board, console=shown, refresh_per_second=12, transient=True):
        yield board.report


def component_table(states: Iterable[ComponentState]) -> Table:
    """Name, state, address, pid and uptime of each process."""
    table = Table("process", "state", "address", "pid", "up for", box=None, pad_edge=False, header_style="bold")
    for state in states:
        table.add_row(
            state.name,
            Text(state.state, COLOURS.get(state.state, "")),
            state.address or "-",
            str(state.pid or "-"),
            "-" if state.uptime_s is None else duration(state.uptime_s),
        )
    return table


def duration(seconds: float) -> str:
    """Renders seconds as people say them: `42 s`, `3 min`, `5 h 10 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def overview_tables(found: Mapping[str, Any]) -> list[Table | Text]:
    """What `overview` found, one block for each pipeline."""
    blocks = [part for name, pipeline in found["pipelines"].items() for part in _pipeline(name, pipeline)]
    blocks += [part for name, files in found.get("unknown_pipelines", {}).items() for part in _stranger(name, files)]
    dead = [f"{count} dead-lettered in {name}" for name, count in found["dead_lettered"].items()]
    return [*blocks, *(Text(line, "red") for line in dead), *(Text(note, "yellow") for note in found["notes"])]


def _pipeline(name: str, pipeline: Mapping[str, Any]) -> Iterator[Table | Text]:
    yield Text(f"\n{name}: {_champion(pipeline)}", "bold")
    if pipeline["trial"]:
        yield Text(_trial(pipeline["trial"]))
    if pipeline["ingestions"]:
        yield _rows("ingestion", pipeline["ingestions"], INGESTION)
    if pipeline["runs"]:
        yield _rows("training run", pipeline["runs"], RUN)


def _stranger(name: str, ingestions: list[Mapping[str, Any]]) -> Iterator[Table | Text]:
    yield Text(f"\n{name}: there is no such pipeline, and yet there are files for it in raw/{name}/", "yellow")
    if ingestions:
        yield _rows("ingestion", ingestions, INGESTION)


def _champion(pipeline: Mapping[str, Any]) -> str:
    if not pipeline["champion_known"]:
        return "its champion is not known now"
    promotion = pipeline["champion"]
    return "no champion yet" if promotion is None else f"champion {_promotion(promotion)}"


def _trial(promotion: Mapping[str, Any]) -> str:
    mode = "shadow" if promotion.get("shadow") else "canary"
    return f"{mode} of {promotion['share']:.0%}: {_promotion(promotion)}"


def _promotion(promotion: Mapping[str, Any]) -> str:
    release, since = promotion.get("release_version", "?"), _cell(promotion.get("created_at"))
    return f"{release} since {since}, promoted by {promotion.get('by', '?')} ({promotion.get('reason', '?')})"


def _rows(title: str, rows: Iterable[Mapping[str, Any]], wanted: tuple[str, ...]) -> Table:
    """One line for each row; columns that are empty throughout are left out."""
    listed = list(rows)
    names = [name for name in wanted if any(row.get(name) not in (None, "", {}) for row in listed)]
    table = Table("", *(name.replace("_", " ") for name in names), box=None, pad_edge=False, header_style="dim")
    for row in listed:
        table.add_row(title, *(_cell(row.get(name)) for name in names))
    return table


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {reason}" for reason, count in value.items()) or "-"
    text = "-" if value is None else str(value)
    return TIMESTAMP.sub(r"\1 \2", text)


def _plain(shown: Console) -> Callable[[str, str, str], None]:
    began = time.monotonic()

    def report(name: str, phase: str, detail: str) -> None:
        shown.print(f"{time.monotonic() - began:6.1f} s  {name:<11} {phase:<9} {detail}".rstrip(), highlight=False)

    return report


class _Board:
    """The lines of a live display, in order of first appearance."""

    def __init__(self) -> None:
        self._lines: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()
        self._spinner = Spinner("dots")

    def report(self, name: str, phase: str, detail: str) -> None:
        with self._lock:
            self._lines[name] = (phase, detail)

    def __rich__(self) -> Table:
        table = Table.grid(padding=(0, 2))
        with self._lock:
            lines = list(self._lines.items())
        for name, (phase, detail) in lines:
            mark = self._spinner if phase in BUSY else Text("✗" if phase == "failed" else "✓", COLOURS.get(phase, ""))
            table.add_row(mark, name, Text(phase, COLOURS.get(phase, "")), detail)
        return table
