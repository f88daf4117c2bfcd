"""What the stack remembers between two commands: `stack.json`, and the lock beside it."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from esteira_cli.stack.errors import StackBusy, StackError


class ProcessRecord(msgspec.Struct, frozen=True):
    """A process that was started: the pair (pid, started) names it even after its pid is reused."""

    pid: int
    started: float
    """Start time as the kernel tells it, in seconds since boot on Linux."""
    fingerprint: str
    """Digest of its command and environment: another one means that it must be started anew."""


class StackState(msgspec.Struct, frozen=True):
    """The contents of `stack.json`."""

    pipelines_dir: str = ""
    options: dict[str, str | float | bool] = {}
    ports: dict[str, int] = {}
    processes: dict[str, ProcessRecord] = {}
    version: int = 1


def read_state(home: Path) -> StackState:
    """Reads `stack.json`; a stack that never started has an empty state.

    Raises:
        StackError: the file is there and is not what this version wrote.
    """
    path = home / "stack.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=StackState)
    except FileNotFoundError:
        return StackState()
    except msgspec.MsgspecError as error:
        raise StackError(f"{path} cannot be read: {error}; `esteira down --wipe --yes` starts afresh") from error


def write_state(home: Path, state: StackState) -> None:
    """Replaces `stack.json` in one step: a reader sees the old state or the new one."""
    replace_file(home / "stack.json", msgspec.json.format(msgspec.json.encode(state), indent=2))


def replace_file(path: Path, data: bytes) -> None:
    """Writes a private file in one step."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


@contextmanager
def locked(home: Path, patience: float = 120.0, when_busy: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the stack's lock, so that two commands do not start or stop the same processes at once.

    The kernel drops the lock with the process that holds it, however that ends.

    Raises:
        StackBusy: another command held it for `patience` seconds.
    """
    with (home / "lock").open("a") as file:
        if not _try_lock(file.fileno()):
            when_busy()
            _wait_for_lock(file.fileno(), home, patience)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_for_lock(descriptor: int, home: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while not _try_lock(descriptor):
        if time.monotonic() > deadline:
            raise StackBusy(f"another esteira command has been at work on {home} for {patience:.0f} s; wait or stop it")
        time.sleep(0.1)
