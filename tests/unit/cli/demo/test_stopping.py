"""A demo stops what it started, and nothing that another command has put in its place."""

from io import StringIO
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from esteira_cli.demo.command import _stopped_in_the_end
from esteira_cli.demo.narrator import Narrator
from esteira_cli.demo.playground import Playground
from esteira_cli.stack.stack import ComponentState

STARTED = {11, 12}


class InMemoryStack:
    """Runs processes of the pids that it is told."""

    home = Path("home")

    def __init__(self, *pids: int) -> None:
        self.pids = pids
        self.stopped = False

    def has_data(self) -> bool:
        return True

    def state(self) -> list[ComponentState]:
        return [ComponentState("mlflow", "down", ""), *(ComponentState("etl", "healthy", "", pid) for pid in self.pids)]

    def down(self, **_: Any) -> None:
        self.stopped = True


@pytest.mark.parametrize(
    ("started", "running", "stopped"),
    [
        (STARTED, (11, 12), True),
        (STARTED, (11, 22), True),  # one was killed, and started anew
        (STARTED, (), True),
        (STARTED, (21, 22), False),
        (set(), (21, 22), True),  # interrupted while it starts
    ],
)
def test_what_another_command_started_stays_up(started: set[int], running: tuple[int, ...], stopped: bool) -> None:
    stack, shown = InMemoryStack(*running), StringIO()
    with _stopped_in_the_end(cast("Playground", stack), started, Narrator(Console(file=shown))):
        pass
    assert (stack.stopped, "stays up" in shown.getvalue()) == (stopped, not stopped)
