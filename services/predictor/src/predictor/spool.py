"""Where answered predictions lie until Pub/Sub has them: append-only files of a worker, written before the answer.

A worker has a folder of its own below the root, and holds the lock in it for as long as it lives. It appends records
to segments, `00000001.log` and so on. The keeper publishes what lies there, also while the worker writes; `sent` names
the range that it is publishing. When a keeper was killed the next one sends that range again with the identity that it
had before, so that whoever received it already knows it. Where the lock of a folder is free its worker has ended, and
the folder goes once all of it is published. A record that was cut short was never answered.

Written is in the page cache of the machine: it outlives the process, not the machine.
"""

import fcntl
import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4, uuid5

import msgspec

logger = logging.getLogger(__name__)

SPOOL_BYTES = 256 << 20
SEGMENT_BYTES = 8 << 20
_NAMESPACE = UUID("5b0c9a5e-3c0e-4d1b-9f67-6c0a51d1f6a3")
_PROGRESS = "sent"
_LOCK = "lock"
_KEEPER = ".keeper"
_PROGRESS_BYTES = 64
_MARGIN_BYTES = 4 * SEGMENT_BYTES
_ROOM_SECONDS = 1.0


class Header(msgspec.Struct, frozen=True, array_like=True):
    """What stands before a record's predictions."""

    pipeline: str
    model_version: str
    rows: int = 0
    microseconds: int = 0
    failures: int = 0


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

    def event_id(self, pipeline: str, model_version: str) -> UUID:
        """The identity of the event that tells of the batch's records of one release."""
        return uuid5(_NAMESPACE, f"{self.place}/{pipeline}/{model_version}")


class SpoolWriter:
    """Appends the records of this process; threads may share it. The folder is made with the first record.

    Args:
        root: holds the folders of all workers.
        limit: what the keeper lets lie in the folder. Where there is a quarter more and some segments, no keeper is at
            work, and nothing is added.
        segment_bytes: of a file, about.
    """

    def __init__(self, root: Path, limit: int = SPOOL_BYTES, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._root = root
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
            written = os.write(self._file, line)
            if written < len(line):
                os.ftruncate(self._file, self._size)
                raise OSError(f"{written} of {len(line)} bytes written; the disk is full")
            self._size += written

    def _begin_segment(self) -> None:
        if self.folder is None:
            self._begin_folder()
        assert self.folder is not None  # noqa: S101  it has begun
        self._require_room(self.folder)
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

    def _begin_folder(self) -> None:
        """Nobody sees the folder before its lock is held."""
        name = uuid4().hex
        arriving = self._root / f".{name}"
        arriving.mkdir(parents=True, mode=0o700)
        self._held = os.open(arriving / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._held, fcntl.LOCK_EX)
        self.folder = arriving.rename(self._root / name)


class SpoolReader:
    """Reads the records of one folder in order, while they are written or afterwards. One thread at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._segment, self._at, self._until, self.settled = self._read_progress()

    def take(self, rows: int, size: int) -> Batch | None:
        """The next records, at most so many rows and bytes, but one record at least.

        They are under way until `settle` is called: until then they are taken again, as the same batch, by this reader
        or by one that comes after it.
        """
        while (path := self._current()) is not None:
            limit = self._until - self._at if self._until else size
            found, length = _read_records(path, self._at, limit, 2**62 if self._until else rows)
            if found:
                self._until = self._at + length
                self._write_progress()
                place = f"{self.folder.name}/{self._segment}/{self._at}"
                return Batch(place, found, sum(record.header.rows for record in found))
            self._until = 0
            if not self._is_finished():
                return None
            path.unlink(missing_ok=True)
        return None

    def settle(self, rows: int) -> None:
        """Counts what was taken, so many rows, as published or lost: it is not taken again."""
        self._at, self._until, self.settled = self._until, 0, self.settled + rows
        self._write_progress()

    def waiting(self) -> int:
        """Bytes that are not settled."""
        return measure_spool(self.folder) - (self._at if self._current() else 0)

    def count(self) -> int:
        """Predictions that are not settled; it reads them all."""
        self._current()
        starts = {path: self._at if _number(path) == self._segment else 0 for path in _segments(self.folder)}
        found = (_read_records(path, begin, -1, 2**62)[0] for path, begin in starts.items())
        return sum(record.header.rows for records in found for record in records)

    def trim(self, limit: int) -> int:
        """Deletes the oldest segments but the one being read until `limit` bytes remain; gives the rows lost by it."""
        lost = 0
        segments = [path for path in _segments(self.folder) if _number(path) > self._segment]
        sizes = {path: path.stat().st_size for path in segments}
        for path in segments[:-1]:
            if sum(sizes.values()) <= limit:
                break
            lost += sum(record.header.rows for record in _read_records(path, 0, sizes.pop(path), 2**62)[0])
            path.unlink()
        if lost:
            self.settled += lost
            self._write_progress()
        return lost

    def _current(self) -> Path | None:
        """The oldest segment; `at` is a place in it."""
        path = next(iter(_segments(self.folder)), None)
        if path is not None and _number(path) != self._segment:
            self._segment, self._at, self._until = _number(path), 0, 0
        return path

    def _is_finished(self) -> bool:
        return any(_number(path) > self._segment for path in _segments(self.folder))

    def _read_progress(self) -> tuple[int, int, int, int]:
        """Segment, begin and end (0: none) of the range under way, rows settled; older writers left the last out."""
        with suppress(FileNotFoundError, ValueError):
            told = [*map(int, (self.folder / _PROGRESS).read_text("ascii").split()), 0]
            segment, begin, end, settled = told[:4]
            return segment, begin, end, settled
        return 0, 0, 0, 0

    def _write_progress(self) -> None:
        said = f"{self._segment} {self._at} {self._until} {self.settled}".ljust(_PROGRESS_BYTES - 1) + "\n"
        file = os.open(self.folder / _PROGRESS, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(file, said.encode(), 0)
        finally:
            os.close(file)


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
    return _take_lock(root / _KEEPER)


def lock_spool(folder: Path) -> Lock | None:
    """None where its worker lives and may add to it."""
    return _take_lock(folder / _LOCK)


def find_spools(root: Path) -> list[Path]:
    """The folders of all workers, living or dead."""
    return sorted(path for path in root.glob("[!.]*") if path.is_dir())


def measure_spool(folder: Path) -> int:
    """Bytes in all its segments; one may go meanwhile."""
    found = 0
    for path in folder.glob("*.log"):
        with suppress(FileNotFoundError):
            found += path.stat().st_size
    return found


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
