"""Where answered predictions lie until Pub/Sub has them: append-only files of a worker, written before the answer.

A worker has a folder of its own below the root, and holds the lock in it for as long as it lives. It appends records
to segments, `00000001.log` and so on. The keeper publishes what lies there, also while the worker writes; `sent` names
the range that it is publishing. When a keeper was killed the next one sends that range again with the identity that it
had before, so that whoever received it already knows it. Where the lock of a folder is free its worker has ended, and
the folder goes once all of it is published. A record that was cut short was never answered.

Written is in the page cache of the machine: it outlives the process, not the machine.
"""

import ctypes
import errno
import fcntl
import os
import re
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import msgspec

SPOOL_BYTES = 256 << 20
SEGMENT_BYTES = 8 << 20
PROGRESS = "sent"
_PROGRESS_BYTES = 64
_LOCK = "lock"
_KEEPER = ".keeper"
_GONE = ".gone"
_MARGIN_BYTES = 4 * SEGMENT_BYTES
_ROOM_SECONDS = 1.0
GIVE_WAY_SECONDS = 0.1
_LOOK_SECONDS = 0.005
_SHORT_BYTES = 16 << 10
_write_short = ctypes.PyDLL(None, use_errno=True).write
_write_short.argtypes, _write_short.restype = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t], ctypes.c_ssize_t


class Header(msgspec.Struct, frozen=True, array_like=True):
    """What stands before a record's predictions."""

    pipeline: str
    model_version: str
    rows: int = 0
    microseconds: int = 0
    failures: int = 0
    shadow: bool = False


class Record(msgspec.Struct, frozen=True):
    """One entry of the spool."""

    header: Header
    predictions: bytes | memoryview
    """JSON objects with commas between them."""


class SpoolWriter:
    """Appends the records of this process; threads may share it. The folder is made with the first record.

    Args:
        root: holds the folders of all workers.
        limit: what the keeper lets lie in the folder. From three quarters of it on, who writes gives way to the keeper.
            Where there is a quarter more and some segments, no keeper is at work, and nothing is added.
        segment_bytes: of a file, about.
    """

    def __init__(self, root: Path, limit: int = SPOOL_BYTES, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._root = root
        self._much = limit * 3 // 4
        self._most = limit + limit // 4 + _MARGIN_BYTES
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._held: int | None = None
        self._file: int | None = None
        self._number = 0
        self._size = 0
        self._full_until = float("-inf")
        self.folder: Path | None = None

    def append(self, header: Header, predictions: bytes) -> None:
        """Writes one record, whole or not at all.

        Raises:
            OSError: the disk is full, or not there; or nobody publishes what lies there.
        """
        line = b"%b\t%b\n" % (msgspec.json.encode(header), predictions)
        with self._lock:
            if self._file is None or self._size >= self._segment_bytes:
                self._begin_segment()
            assert self._file is not None  # noqa: S101  a segment has begun
            written = _write(self._file, line)
            if written < len(line):
                os.ftruncate(self._file, self._size)
                raise OSError(f"{written} of {len(line)} bytes written; the disk is full")
            self._size += written

    def _begin_segment(self) -> None:
        if self.folder is None:
            self._begin_folder()
        assert self.folder is not None  # noqa: S101  it has begun
        self._require_room(self.folder)
        self._give_way(self.folder)
        path = self.folder / f"{self._number + 1:08}.log"
        begun = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if self._file is not None:
            os.close(self._file)
        self._file, self._number, self._size = begun, self._number + 1, 0

    def _require_room(self, folder: Path) -> None:
        """Where there is none each request comes here: it looks once in a while."""
        if time.monotonic() >= self._full_until:
            if measure_spool(folder) <= self._most:
                return
            self._full_until = time.monotonic() + _ROOM_SECONDS
        raise OSError(f"{folder} holds more than {self._most} bytes, and nobody publishes them")

    def _give_way(self, folder: Path) -> None:
        """Where much waits, lets the keeper catch up for a moment, and all who write wait: workers can answer more than
        it can publish. Where nobody publishes, each segment costs that moment."""
        until = time.monotonic() + GIVE_WAY_SECONDS
        while measure_spool(folder) > self._much and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)

    def _begin_folder(self) -> None:
        """Nobody sees the folder before its lock is held, and before there is room for what the keeper writes down:
        without it the keeper could publish nothing from a full disk, and so make no room."""
        name = uuid4().hex
        arriving = self._root / f".{name}"
        arriving.mkdir(parents=True, mode=0o700)
        held = None
        try:
            held = os.open(arriving / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(held, fcntl.LOCK_EX)
            (arriving / PROGRESS).write_bytes(format_progress(0, 0, 0, 0))
            self.folder = arriving.rename(self._root / name)
            self._held = held
        except OSError:  # the next request tries again
            _remove_begun(arriving)
            if held is not None:
                os.close(held)
            raise


def format_progress(segment: int, begin: int, end: int, settled: int) -> bytes:
    """What `sent` says: segment, begin and end (0: none) of the range under way, rows settled; always as long."""
    return f"{segment} {begin} {end} {settled}".ljust(_PROGRESS_BYTES - 1).encode() + b"\n"


class Lock:
    """A file's lock: one process has it at once, and loses it with its end."""

    def __init__(self, file: int) -> None:
        self._file = file

    def free(self) -> None:
        """Gives it back."""
        os.close(self._file)


def lock_root(root: Path) -> Lock | None:
    """For the one keeper that publishes what lies below `root`; None where another one does."""
    root.mkdir(parents=True, exist_ok=True)
    (root / _KEEPER).touch(0o600)
    lock = _take_lock(root / _KEEPER)
    for gone in root.glob(f".*{_GONE}") if lock else []:
        shutil.rmtree(gone, ignore_errors=True)
    return lock


def lock_spool(folder: Path) -> Lock | None:
    """None where its worker lives and may add to it."""
    return _take_lock(folder / _LOCK)


def find_spools(root: Path) -> list[Path]:
    """The folders of all workers, living or dead; what is called otherwise is none, such as `lost+found`."""
    return sorted(path for path in root.glob("[!.]*") if re.fullmatch("[0-9a-f]{32}", path.name))


def remove_spool(folder: Path) -> None:
    """Takes it away at once, and then its files: one that had lost some would be read wrongly."""
    gone = folder.rename(folder.with_name(f".{folder.name}{_GONE}"))
    shutil.rmtree(gone, ignore_errors=True)


def measure_spool(folder: Path) -> int:
    """Bytes in all its segments; one may go meanwhile."""
    found = 0
    for path in folder.glob("*.log"):
        with suppress(FileNotFoundError):
            found += path.stat().st_size
    return found


def _write(file: int, data: bytes) -> int:
    """`os.write`, which hands the interpreter on to another thread: that costs more than to copy a few kilobytes."""
    if len(data) > _SHORT_BYTES:
        return os.write(file, data)
    written: int = _write_short(file, data, len(data))
    if written >= 0:
        return written
    if ctypes.get_errno() == errno.EINTR:
        return os.write(file, data)  # a signal came first; this one tries again (PEP 475)
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _remove_begun(folder: Path) -> None:
    """Needs no descriptor, of which there may be none left."""
    with suppress(OSError):
        for name in (PROGRESS, _LOCK):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _take_lock(path: Path) -> Lock | None:
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return Lock(file)
