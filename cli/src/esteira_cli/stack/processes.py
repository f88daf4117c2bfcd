"""Processes that outlive the command that starts them, each the leader of its own session.

A process is known by its pid and its start time, so that a pid that the kernel gave to a stranger is never signalled.
Whatever a component starts carries the component's name and the stack's folder in its environment: that is how orphans
are found when their parent was killed.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from esteira_cli.stack.component import Component
from esteira_cli.stack.errors import StackError
from esteira_cli.stack.state import ProcessRecord

HOME_MARK = "ESTEIRA_STACK_HOME"
NAME_MARK = "ESTEIRA_STACK_COMPONENT"
POSTGRES_FOLDER = "postgres"
"""Its children write over their environment: they are known by the folder that they work in."""
SAME_START_SECONDS = 0.005
KILL_SECONDS = 5.0
POLL_SECONDS = 0.02
LARGEST_LOG = 10_000_000
LARGEST_TAIL = 1_000_000
WITHHELD = ("GOOGLE_APPLICATION_CREDENTIALS", "DATABASE_URL", "PYTHONWARNINGS", "AIP_HTTP_PORT")
"""Variables of the user that must not reach the local stack."""

_children: list[subprocess.Popen[bytes]] = []
"""Processes that this very interpreter started: polled, so that they do not stay behind as zombies."""


def launch(component: Component, home: Path) -> ProcessRecord:
    """Starts a component in a session of its own, its output appended to its log.

    Raises:
        StackError: its program cannot be run.
    """
    log = log_path(home, component.name)
    _rotate(log)
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                component.argv,
                env=_environment(component, home),
                cwd=component.working_dir or home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=component.user,
                group=component.user,
                extra_groups=() if component.user else None,
            )
        except OSError as error:
            raise StackError(f"{component.name}: {component.argv[0]} cannot be run: {error}") from error
    _children.append(process)
    return ProcessRecord(process.pid, _started(process.pid), component.fingerprint)


def is_alive(record: ProcessRecord) -> bool:
    """Tells whether that very process runs; zombies and strangers under its pid do not count."""
    return find(record) is not None


def find(record: ProcessRecord) -> psutil.Process | None:
    """The running process of a record."""
    _reap()
    try:
        process = psutil.Process(record.pid)
        same = abs(_started(record.pid) - record.started) < SAME_START_SECONDS
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def members(home: Path, component: Component | None = None) -> list[psutil.Process]:
    """Every living process that the stack in `home`, or one component of it, started; orphans too."""
    folder = component.working_dir if component else home / POSTGRES_FOLDER
    name = component.name if component else None
    return [process for process in psutil.process_iter() if _belongs(process, home, name, folder)]


def stop(processes: Iterable[psutil.Process], first: signal.Signals, patience: float) -> None:
    """Asks processes to end, and kills those that have not after `patience` seconds."""
    left = list(processes)
    for number, seconds in ((first, patience), (signal.SIGKILL, KILL_SECONDS)):
        _signal(left, number)
        left = _outlast(left, seconds)
    _reap()


def _outlast(asked: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Waits until all have ended, and returns those that have not after `seconds`.

    A zombie has ended: in a container there may be nobody to collect it.
    """
    deadline = time.monotonic() + seconds
    while (left := [process for process in asked if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return left


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def log_path(home: Path, name: str) -> Path:
    """Where a component writes."""
    return home / "logs" / f"{name}.log"


def log_tail(home: Path, name: str, lines: int = 15) -> list[str]:
    """The last lines of a component's log."""
    try:
        with log_path(home, name).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LARGEST_TAIL))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-lines:]


def _environment(component: Component, home: Path) -> Mapping[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in WITHHELD}
    direct = ",".join(filter(None, ("127.0.0.1", "localhost", os.environ.get("NO_PROXY"))))
    marks = {HOME_MARK: str(home), NAME_MARK: component.name, "PYTHONUNBUFFERED": "1"}
    return inherited | {"NO_PROXY": direct, "no_proxy": direct} | dict(component.environ) | marks


def _rotate(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LARGEST_LOG:
        log.replace(log.with_suffix(".log.1"))


def _started(pid: int) -> float:
    """When a process started, in seconds that no change of the clock moves; 0 where it has ended.

    Linux tells it since boot, in ticks (`proc_pid_stat(5)`, field 22); elsewhere it is the time of day.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except OSError:
        pass
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return 0.0


def _belongs(process: psutil.Process, home: Path, name: str | None, folder: Path | None) -> bool:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        if folder and process.name() == "postgres" and process.cwd() == str(folder):
            return True
        environ = process.environ()
    except (psutil.Error, OSError):
        return False
    return environ.get(HOME_MARK) == str(home) and name in (None, environ.get(NAME_MARK))


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def _reap() -> None:
    """Takes out one by one what has ended: other threads may be adding children."""
    for child in list(_children):
        if child.poll() is not None:
            with suppress(ValueError):
                _children.remove(child)
