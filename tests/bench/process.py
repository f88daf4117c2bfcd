"""A server that is measured: started, awaited until it answers rightly, weighed, ended with all its workers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

PATIENCE_S = 120.0
INTERVAL_S = 0.02


class CannotStart(Exception):
    """The server does not answer rightly; the message ends with its log."""


class Server:
    """A running server.

    Attributes:
        start_s: seconds from the start of its process to its first right answer.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self.start_s = float("nan")

    def said(self) -> str:
        """The end of its log."""
        return _tail(self._log)

    def terminate(self) -> None:
        """Sends SIGTERM to its first process alone, as containers' engines do."""
        self._process.terminate()

    def wait(self, seconds: float) -> int:
        """The exit status of its first process; it is killed where it does not end in time."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        self._process.kill()
        return self._process.wait()

    def memory_mb(self) -> float:
        """What the process and its descendants hold, each shared page counted once."""
        family = [psutil.Process(self._process.pid)]
        family += family[0].children(recursive=True)
        return sum(_proportional_kb(process.pid) for process in family) / 1024


@contextmanager
def running(command: list[str], environ: dict[str, str], folder: Path, answers: Callable[[], bool]) -> Iterator[Server]:
    """Starts a server in `folder` and waits for its first right answer.

    Args:
        answers: asks it once; False or an OSError says: not yet.

    Raises:
        CannotStart: it ended or did not answer in time.
    """
    path = f"{Path(command[0]).parent}:{os.environ['PATH']}"
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    log = folder / "server.log"
    with log.open("wb") as output:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command,
            env={**inherited, "OMP_NUM_THREADS": "1", "PATH": path, **environ},
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = Server(process, log)
    try:
        _await(answers, process, log)
        server.start_s = time.perf_counter() - begun
        yield server
    finally:
        _end(process)


def _await(answers: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    said: object = "nothing"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if answers():
                return
        except OSError as error:
            said = error
        time.sleep(INTERVAL_S)
    raise CannotStart(f"no right answer (the last: {said}); its log ends with:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _end(process: subprocess.Popen[bytes]) -> None:
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    _signal(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        print(f"killed: {process.args!r} did not end", file=sys.stderr)
    _signal(process.pid, signal.SIGKILL)
    process.wait()
    for child in family:
        if child.is_running():
            child.kill()


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _proportional_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
