"""Processes that outlive the command that starts them, each the leader of its own session.

A process is known by its pid and its start time, so that a pid that the kernel gave to a stranger is never signalled.
Whatever a component starts carries the component's name and the stack's folder in its environment: that is how orphans
are found when their parent was killed.
"""

import os
import signal
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from esteira_cli.stack.component import Component
from esteira_cli.stack.errors import StackError
from esteira_cli.stack.state import ProcessRecord

HOME_MARK = "ESTEIRA_STACK_HOME"
NAME_MARK = "ESTEIRA_STACK_COMPONENT"
SAME_START_SECONDS = 1.0
LARGEST_LOG = 10_000_000
WITHHELD = ("GOOGLE_APPLICATION_CREDENTIALS", "DATABASE_URL", "PYTHONWARNINGS")
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
    return ProcessRecord(process.pid, _created(process.pid), component.fingerprint)


def is_alive(record: ProcessRecord) -> bool:
    """Tells whether that very process runs; zombies and strangers under its pid do not count."""
    return find(record) is not None


def find(record: ProcessRecord) -> psutil.Process | None:
    """The running process of a record."""
    _reap()
    try:
        process = psutil.Process(record.pid)
        same = abs(process.create_time() - record.created) < SAME_START_SECONDS
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def members(home: Path, components: Iterable[Component]) -> list[psutil.Process]:
    """Every living process that these components of the stack in `home` started, orphans too."""
    names = {component.name for component in components}
    folders = {str(component.working_dir) for component in components if component.working_dir}
    return [process for process in psutil.process_iter() if _belongs(process, str(home), names, folders)]


def stop(processes: Iterable[psutil.Process], first: signal.Signals, patience: float) -> None:
    """Asks processes to end, and kills those that have not after `patience` seconds."""
    asked = list(processes)
    _signal(asked, first)
    _, alive = psutil.wait_procs(asked, timeout=patience)
    _signal(alive, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=5)
    _reap()


def log_path(home: Path, name: str) -> Path:
    """Where a component writes."""
    return home / "logs" / f"{name}.log"


def log_tail(home: Path, name: str, lines: int = 15) -> str:
    """The last lines of a component's log."""
    try:
        with log_path(home, name).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:])


def _environment(component: Component, home: Path) -> Mapping[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in WITHHELD}
    direct = ",".join(filter(None, ("127.0.0.1", "localhost", os.environ.get("NO_PROXY"))))
    marks = {HOME_MARK: str(home), NAME_MARK: component.name, "PYTHONUNBUFFERED": "1"}
    return inherited | {"NO_PROXY": direct, "no_proxy": direct} | dict(component.environ) | marks


def _rotate(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LARGEST_LOG:
        log.replace(log.with_suffix(".log.1"))


def _created(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:  # it ended at once: no process will match this record
        return 0.0


def _belongs(process: psutil.Process, home: str, names: set[str], folders: set[str]) -> bool:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        if folders and process.cwd() in folders:
            return True
        environ = process.environ()
    except (psutil.Error, OSError):
        return False
    return environ.get(HOME_MARK) == home and environ.get(NAME_MARK) in names


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def _reap() -> None:
    _children[:] = [child for child in _children if child.poll() is None]
