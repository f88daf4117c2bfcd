"""Reads what workers spooled, in order and in batches that keep their identity until they are published."""

import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid5

import msgspec

from predictor.spool import PROGRESS, Header, Record, format_progress, measure_spool

logger = logging.getLogger(__name__)

_NAMESPACE = UUID("5b0c9a5e-3c0e-4d1b-9f67-6c0a51d1f6a3")


class Batch(msgspec.Struct, frozen=True):
    """Consecutive records, and where they stand."""

    place: str
    """The same whenever these records are read again."""
    records: list[Record]
    rows: int

    def event_id(self, pipeline: str, model_version: str, *, shadow: bool = False) -> UUID:
        """The identity of the event that tells of the batch's records of one release, answers or shadows."""
        return uuid5(_NAMESPACE, f"{self.place}/{pipeline}/{model_version}{'/shadow' if shadow else ''}")


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
            finished = self._is_finished()  # asked first: what is added while it is read is no part of what was read
            limit = self._until - self._at if self._until else size
            found, length = _read_records(path, self._at, limit, 2**62 if self._until else rows)
            if found:
                self._until = self._at + length
                self._write_progress(self._at, self._until, self.settled)
                place = f"{self.folder.name}/{self._segment}/{self._at}"
                return Batch(place, found, sum(record.header.rows for record in found))
            self._until = 0
            if not finished:
                return None
            path.unlink(missing_ok=True)
        return None

    def settle(self, rows: int) -> None:
        """Counts what was taken, so many rows, as published or lost: it is not taken again.

        Raises:
            OSError: it could not be written down; all is still under way.
        """
        self._write_progress(self._until, 0, self.settled + rows)
        self._at, self._until, self.settled = self._until, 0, self.settled + rows

    def waiting(self) -> int:
        """Bytes that are not settled."""
        return measure_spool(self.folder) - (self._at if self._current() else 0)

    def count(self) -> int:
        """Predictions that are not settled; it reads them all, also while another thread publishes them."""
        segment, at, found = self._segment, self._at, 0
        for path in _segments(self.folder):
            with suppress(FileNotFoundError):  # all of it was published meanwhile
                found += _count_rows(path, at if _number(path) == segment else 0)
        return found

    def trim(self, limit: int) -> int:
        """Deletes the oldest segments but the one being read until `limit` bytes remain; gives the rows lost by it."""
        lost = 0
        segments = [path for path in _segments(self.folder) if _number(path) > self._segment]
        sizes = {path: path.stat().st_size for path in segments}
        for path in segments[:-1]:
            if sum(sizes.values()) <= limit:
                break
            found, _ = _count_rows(path, 0), sizes.pop(path)
            path.unlink()
            self.settled, lost = self.settled + found, lost + found
        if lost:
            with suppress(OSError):  # the next one writes it too
                self._write_progress(self._at, self._until, self.settled)
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
        """As `format_progress` writes them; older writers left the last out."""
        with suppress(FileNotFoundError, ValueError):
            told = [*map(int, (self.folder / PROGRESS).read_text("ascii").split()), 0]
            segment, begin, end, settled = told[:4]
            return segment, begin, end, settled
        return 0, 0, 0, 0

    def _write_progress(self, begin: int, end: int, settled: int) -> None:
        file = os.open(self.folder / PROGRESS, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(file, format_progress(self._segment, begin, end, settled), 0)
        finally:
            os.close(file)


def _segments(folder: Path) -> list[Path]:
    """What is called otherwise is none."""
    return sorted(path for path in folder.glob("*.log") if re.fullmatch("[0-9]{8,}", path.stem))


def _number(segment: Path) -> int:
    return int(segment.stem)


def _count_rows(path: Path, begin: int) -> int:
    return sum(record.header.rows for record in _read_records(path, begin, -1, 2**62)[0])


def _read_records(path: Path, begin: int, size: int, rows: int) -> tuple[list[Record], int]:
    """Complete records from `begin` on, and their bytes; the first whatever its size."""
    with path.open("rb") as file:
        file.seek(begin)
        data = file.read(size)
        if b"\n" not in data:
            data += file.readline()
    found: list[Record] = []
    headers: dict[bytes, Header] = {}  # many are alike
    view = memoryview(data)  # whose parts are not copied
    length = taken = 0
    while (end := data.find(b"\n", length)) >= 0:
        tab = data.find(b"\t", length, end)
        head = data[length : tab if tab >= 0 else end]
        header = headers.get(head) or headers.setdefault(head, _decode_header(head, path))
        if found and taken + header.rows > rows:
            break
        found.append(Record(header, view[tab + 1 : end] if header.pipeline and tab >= 0 else b""))
        length, taken = end + 1, taken + header.rows
    return found, length


def _decode_header(data: bytes, path: Path) -> Header:
    """A record that cannot be read is passed over: it must not stand in the way of the others."""
    try:
        return msgspec.json.decode(data, type=Header)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        logger.error("spooled record damaged", extra={"file": str(path), "error": str(error)})  # noqa: TRY400
        return Header("", "")
