"""What the demo needs of the stack that it plays on, and which stacks there are."""

from pathlib import Path
from typing import Protocol

from esteira_cli.stack.stack import ComponentState, Stack
from esteira_cli.stack.starter import Report, silent

STACKS = ("embedded", "compose")


class Playground(Protocol):
    """A stack that can be started, asked where it is, and stopped."""

    @property
    def home(self) -> Path:
        """The folder that is this stack's alone."""

    def up(self, *, report: Report = silent) -> list[ComponentState]:
        """Starts what is down, and returns when all is healthy."""

    def down(self, wipe: bool = False, report: Report = silent) -> None:
        """Stops everything; with `wipe` its data and its folder are removed."""

    def state(self) -> list[ComponentState]:
        """Looks at every part."""

    def addresses(self) -> dict[str, str]:
        """Where each part is."""

    def environment(self, service: str) -> dict[str, str]:
        """The environment of a command that acts in a service's place."""

    def has_data(self) -> bool:
        """Whether an earlier start may have left data in it."""

    def start_command(self, service: str) -> str:
        """What a user says to start a service again that is down."""

    def logs_command(self, service: str) -> str:
        """What a user says to see what a service wrote."""

    def wipe_command(self) -> str:
        """What a user says to remove the stack with its data."""


def playground(kind: str, home: Path, pipelines: Path) -> Playground:
    """The stack of one kind; containers have a folder beside `home`, so that the two never wipe each other's."""
    if kind == "compose":
        from esteira_cli.compose import ComposeStack

        return ComposeStack(home.with_name(f"{home.name}-compose"), pipelines.resolve().parent)
    return Stack(home, pipelines)
