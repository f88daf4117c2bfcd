"""What the demo says while it runs: a live line with a spinner or a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Narrator:
    """Tells the user what goes on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def elapsed(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._began

    def say(self, line: RenderableType) -> None:
        """Prints something that stays."""
        if isinstance(line, str):
            self._console.print(f"[dim]{self.elapsed():5.0f} s[/dim]  {line}", highlight=False, soft_wrap=True)
        else:
            self._console.print(line)

    @contextmanager
    def stage(self, what: str) -> Iterator[None]:
        """Shows `what` with a spinner for as long as it lasts; says it once where there is no terminal."""
        if not self._console.is_terminal:
            self.say(what)
            yield
            return
        with self._console.status(what):
            yield

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator["Bar"]:
        """Shows a bar that fills up."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        ) as progress:
            task = progress.add_task(what, total=total)
            yield Bar(progress, task)


class Bar:
    """A bar on the screen; threads may share it."""

    def __init__(self, progress: Progress, task: int) -> None:
        self._progress = progress
        self._task = task

    def advance(self) -> None:
        """One more is done."""
        self._progress.advance(self._task)  # type: ignore[arg-type]
