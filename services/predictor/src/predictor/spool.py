"""Where answered predictions lie until Pub/Sub has them: append-only files of this process, written before the answer.

A process has a folder of its own below the root, and holds the lock in it for as long as it lives. It appends records
to segments, `00000001.log` and so on; `sent` names the range that is being published. When a process was killed, its
lock is free: another one takes the folder over and publishes what is left, the range under way with the identity that
it had before, so that whoever received it already knows it. A record that was cut short was never answered.

Written is in the page cache of the machine: it outlives the process, not the machine.
"""

import fcntl
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4, uuid5

import msgspec

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 8 << 20
_NAMESPACE = UUID("5b0c9a5e-3c0e-4d1b-9f67-6c0a51d1f6a3")
_PROGRESS = "sent"
_LOCK = "lock"
_PROGRESS_BYTES = 64


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
    predictions: bytes
    """JSON objects with commas between them."""


class Batch(msgspec.Struct, frozen=True):
    """Consecutive records, and where they stand."""

    place: str
    """The same whenever these records are read again."""
    records: list[Record]
    rows: int

    def event_id(self, pipeline: str, model_version: str, *, shadow: bool = False) -> UUID:
        """The identity of the event that tells of the batch's records of one release, answers or shadows."""
        return uuid5(_NAMESPACE, f"{self.place}/{pipeline}/{model_version}{'/shadow' if shadow else ''}")


class SpoolWriter:
    """Appends the records of this process; threads may share it. The folder is made with the first record."""

    def __init__(self, root: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._root = root
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._held: int | None = None
        self._file: int | None = None
        self._number = 0
        self._size = 0
        self.folder: Path | None = None

    def append(self, header: Header, predictions: bytes) -> None:
        """Writes one record, whole or not at all.

        Raises:
            OSError: the disk is full, or not there.
        """
        line = b"%b\t%b\n" % (msgspec.json.encode(header), predictions)
        with self._lock:
            if self._file is None or self._size >= self._segment_bytes:
                self._begin_segment()
            assert self._file is not None  # noqa: S101  a segment has begun
            written = os.write(self._file, line)
            if written < len(line):
                os.ftruncate(self._file, self._size)
                raise OSError(f"{written} of {len(line)} bytes written; the disk is full")
            self._size += written

    def end(self) -> "Ended | None":
        """Ends the folder, if there is one; a later record begins another. The lock is held until `Ended.close`."""
        with self._lock:
            if self._file is None or self._held is None or self.folder is None:
                return None
            os.close(self._file)
            ended = Ended(self.folder, self._held)
            self._file = self._held = self.folder = None
            return ended

    def _begin_segment(self) -> None:
        if self.folder is None:
            self._begin_folder()
        assert self.folder is not None  # noqa: S101  it has begun
        path = self.folder / f"{self._number + 1:08}.log"
        begun = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if self._file is not None:
            os.close(self._file)
        self._file, self._number, self._size = begun, self._number + 1, 0

    def _begin_folder(self) -> None:
        """Nobody sees the folder before its lock is held."""
        name = uuid4().hex
        arriving = self._root / f".{name}"
        arriving.mkdir(parents=True, mode=0o700)
        self._held = os.open(arriving / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._held, fcntl.LOCK_EX)
        self.folder = arriving.rename(self._root / name)


class Ended(msgspec.Struct, frozen=True):
    """A folder to which nothing is added any more."""

    folder: Path
    held: int

    def close(self, *, published: bool) -> None:
        """Frees the lock; with it goes what is published, and what is not waits for another process."""
        if published:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.held)


class SpoolReader:
    """Reads the records of one folder in order, while they are written or afterwards. One thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._segment, self._at, self._until = self._read_progress()

    def take(self, rows: int, size: int) -> Batch | None:
        """The next records, none of them twice: at most so many rows and bytes, but one record at least.

        What is taken counts as published once the next is taken, or `discard` is called.
        """
        while (path := self._current()) is not None:
            limit = self._until - self._at if self._until else size
            found, length = _read_records(path, self._at, limit, 2**62 if self._until else rows)
            if found:
                place = f"{self._folder.name}/{self._segment}/{self._at}"
                self._write_progress(self._at, self._at + length)
                self._at, self._until = self._at + length, 0
                return Batch(place, found, sum(record.header.rows for record in found))
            self._until = 0
            if not self._is_finished():
                return None
            path.unlink(missing_ok=True)
        return None

    def trim(self, limit: int) -> int:
        """Deletes the oldest segments but the one being read until `limit` bytes remain; gives the rows lost by it."""
        lost = 0
        segments = [path for path in _segments(self._folder) if _number(path) > self._segment]
        sizes = {path: path.stat().st_size for path in segments}
        for path in segments[:-1]:
            if sum(sizes.values()) <= limit:
                break
            lost += sum(record.header.rows for record in _read_records(path, 0, sizes.pop(path), 2**62)[0])
            path.unlink()
        return lost

    def _current(self) -> Path | None:
        """The oldest segment; `at` is a place in it."""
        path = next(iter(_segments(self._folder)), None)
        if path is not None and _number(path) != self._segment:
            self._segment, self._at, self._until = _number(path), 0, 0
        return path

    def _is_finished(self) -> bool:
        return any(_number(path) > self._segment for path in _segments(self._folder))

    def _read_progress(self) -> tuple[int, int, int]:
        with suppress(FileNotFoundError, ValueError):
            segment, begin, end = map(int, (self._folder / _PROGRESS).read_text("ascii").split())
            return segment, begin, end
        return 0, 0, 0

    def _write_progress(self, begin: int, end: int) -> None:
        said = f"{self._segment} {begin} {end}".ljust(_PROGRESS_BYTES - 1) + "\n"
        file = os.open(self._folder / _PROGRESS, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(file, said.encode(), 0)
        finally:
            os.close(file)


def adopt(root: Path) -> Iterator[Path]:
    """Folders below `root` whose process has ended, one after another; each is deleted after its turn.

    Leave the loop by an error, and the folder stays for the next time.
    """
    for folder in sorted(root.glob("[!.]*")) if root.is_dir() else []:
        with suppress(FileNotFoundError, NotADirectoryError):
            held = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield folder
                shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                continue
            finally:
                os.close(held)


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))


def _number(segment: Path) -> int:
    return int(segment.stem)


def _read_records(path: Path, begin: int, size: int, rows: int) -> tuple[list[Record], int]:
    """Complete records from `begin` on, and their bytes; the first whatever its size."""
    with path.open("rb") as file:
        file.seek(begin)
        data = file.read(size)
        if b"\n" not in data:
            data += file.readline()
    found: list[Record] = []
    length = taken = 0
    for line in data.split(b"\n")[:-1]:
        head, _, predictions = line.partition(b"\t")
        header = _decode_header(head, path)
        if found and taken + header.rows > rows:
            break
        found.append(Record(header, predictions if header.pipeline else b""))
        length, taken = length + len(line) + 1, taken + header.rows
    return found, length


def _decode_header(data: bytes, path: Path) -> Header:
    """A record that cannot be read is passed over: it must not stand in the way of the others."""
    try:
        return msgspec.json.decode(data, type=Header)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        logger.error("spooled record damaged", extra={"file": str(path), "error": str(error)})  # noqa: TRY400
        return Header("", "")
