"""`esteira demo` run as a user runs it, and what it leaves."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from esteira_cli.demo.report import DemoReport, Month
from esteira_cli.demo.source import DemoSource
from esteira_cli.stack import Stack
from esteira_cli.stack.log_lines import readable
from esteira_cli.stack.processes import log_tail

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "pipelines" / "flights"
ESTEIRA = str(Path(sys.executable).with_name("esteira"))
TAIL_LINES = 12


@dataclass(frozen=True)
class Plan:
    """What the demo is asked to play."""

    first: int
    last: int
    requests: int

    @property
    def months(self) -> list[int]:
        """The months that are replayed."""
        return list(range(self.first, self.last + 1))


class Demo:
    """One run of the demo, in a process of its own, its output in a file.

    Args:
        home: the stack's folder.
        stays: whether the stack stays up at the end, until `interrupt`.
    """

    kind = "embedded"

    def __init__(self, home: Path, plan: Plan, environ: Mapping[str, str] | None = None, stays: bool = False) -> None:
        self.home = home
        self.plan = plan
        self._said = home.with_suffix(".out")
        command = [ESTEIRA, "demo", "--stack", self.kind, "--state-dir", str(home), "--requests", str(plan.requests)]
        with self._said.open("w") as output:
            self.process = subprocess.Popen(
                [*command, "--months", f"{plan.first}-{plan.last}", *([] if stays else ["--exit"])],
                cwd=ROOT,
                env={**os.environ, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        """All that it printed so far."""
        return self._said.read_text()

    def runs(self) -> bool:
        """Whether it is still at it."""
        return self.process.poll() is None

    def finish(self, seconds: float) -> None:
        """Waits for its end; whatever goes wrong is told with its output and the ends of all logs."""
        try:
            code = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the demo did not end within {seconds:.0f} s\n{self.tell()}") from None
        assert code == 0, f"the demo ended with code {code}\n{self.tell()}"

    def interrupt(self) -> None:
        """Presses Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def stop(self) -> None:
        """Ends it and all that it started, whatever state they are in."""
        if self.runs():
            self.process.kill()
            self.process.wait()
        self.take_down()

    def take_down(self) -> None:
        """Stops the stack."""
        Stack(self.home).down()

    def tell(self) -> str:
        """Its output and the end of each log."""
        tails = [f"--- {name}\n" + "\n".join(readable(lines)) for name, lines in self.tails().items()]
        return "\n".join([f"--- esteira demo\n{self.said()}", *tails])

    def tails(self) -> dict[str, list[str]]:
        """The last lines of each log."""
        names = sorted(log.stem for log in (self.home / "logs").glob("*.log"))
        return {name: log_tail(self.home, name, TAIL_LINES) for name in names}

    def report(self) -> DemoReport:
        """The report that it wrote."""
        return msgspec.json.decode((self.home / "demo-report.json").read_bytes(), type=DemoReport)

    def month(self, number: int) -> Month:
        """What the report says of a month."""
        return next(month for month in self.report().months if month.month == number)

    def source(self) -> DemoSource:
        """The raw data that it played."""
        return DemoSource(FOLDER, self.home / "demo")

    def uploaded(self) -> list[Path]:
        """The raw files that it uploaded."""
        source = self.source()
        history = source.path(1).with_name("months-01-03.csv")
        return [history, *(source.path(month) for month in self.plan.months)]


def processes_of(home: Path) -> list[str]:
    """The command lines of living processes that work for the stack in `home`."""
    return [
        " ".join(process.cmdline())
        for process in psutil.process_iter()
        if process.pid != os.getpid() and _belongs(process, str(home))
    ]


def _belongs(process: psutil.Process, home: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        traces = [process.cwd(), *process.cmdline(), *process.environ().values()]
    except (psutil.Error, OSError):
        return False
    return any(home in trace for trace in traces)
