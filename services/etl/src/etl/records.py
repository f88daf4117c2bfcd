"""Splits a CSV file into records, and sets aside the lines that are none, so that the rest goes on.

RFC 4180 with a comma, in UTF-8. A quoted field may hold line ends; but where a quote is never closed, or closed only by
the opening quote of a later line, the first line alone is refused and reading resumes at the next: one lost quote costs
one line and not the file. Each line that is not blank is part of exactly one record.
"""

import csv
import re
from collections.abc import Iterator

import msgspec

MAX_RECORD_LINES = 100
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANK = (b"", b"\r")
_FIELD = r'(?:"(?:[^"]++|"")*+"|[^",\r\n]*+)'
_RECORD = re.compile(rf"{_FIELD}(?:,{_FIELD})*+")


class Malformed(msgspec.Struct, frozen=True):
    """A line that is no record."""

    line: int
    reason: str


class Batch(msgspec.Struct):
    """Records that follow one another, each with the number of its first line; the header is line 1."""

    lines: list[int] = []
    rows: list[list[str]] = []
    malformed: list[Malformed] = []


class NotARecord(Exception):
    """The line cannot be split into fields; the message says why."""


class Records:
    """The records of a file held in memory."""

    def __init__(self, data: bytes) -> None:
        self._lines = data.removeprefix(_BYTE_ORDER_MARK).split(b"\n")
        self._spans: dict[int, int] = {}

    def header(self) -> list[str]:
        """The fields of line 1.

        Raises:
            NotARecord: line 1 cannot be split into fields.
        """
        return _fields(self._lines[0])

    def count(self) -> int:
        """How many lines after the header are not blank."""
        return sum(1 for line in self._lines[1:] if line not in _BLANK)

    def raw(self, line: int) -> bytes:
        """The bytes of the record that begins on `line`, without its line end."""
        first = line - 1
        record = b"\n".join(self._lines[first : first + self._spans.get(line, 1)])
        return record.removesuffix(b"\r")

    def batches(self, width: int, size: int) -> Iterator[Batch]:
        """Splits the lines after the header into records of `width` fields, `size` lines at a time or a little more."""
        index = 1
        while index < len(self._lines):
            batch = Batch()
            end = min(index + size, len(self._lines))
            while index < end:
                index += self._take(index, width, batch)
            yield batch

    def _take(self, index: int, width: int, batch: Batch) -> int:
        """Adds the record at `index` to the batch; returns how many lines it has."""
        line, span = self._lines[index], 1
        if line in _BLANK:
            return span
        try:
            if b'"' in line:
                row, span = self._quoted(index, width)
            else:
                row = _of_width(_plain_fields(line), width)
        except NotARecord as refused:
            batch.malformed.append(Malformed(index + 1, str(refused)))
            return 1
        batch.lines.append(index + 1)
        batch.rows.append(row)
        return span

    def _quoted(self, index: int, width: int) -> tuple[list[str], int]:
        span = self._span(index)
        if span == 1:
            return _of_width(_fields(self._lines[index]), width), span
        try:
            row = _of_width(_fields(b"\n".join(self._lines[index : index + span])), width)
        except NotARecord:
            raise NotARecord("a quote is opened and not closed") from None
        self._spans[index + 1] = span
        return row, span

    def _span(self, index: int) -> int:
        """How many lines there are until the quotes are balanced."""
        if self._lines[index].count(b'"') % 2 == 0:
            return 1
        for last in range(index + 1, min(index + MAX_RECORD_LINES, len(self._lines))):
            if self._lines[last].count(b'"') % 2:
                return last - index + 1
        raise NotARecord("a quote is opened and not closed")


def _of_width(row: list[str], width: int) -> list[str]:
    if len(row) != width:
        raise NotARecord(f"expected {width} fields, got {len(row)}")
    return row


def _fields(record: bytes) -> list[str]:
    if b'"' not in record:
        return _plain_fields(record)
    text = _text(record)
    if _RECORD.fullmatch(text) is None:
        raise NotARecord("a quote stands where none may, or is not closed")
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise NotARecord(f"not CSV: {error}") from error


def _plain_fields(record: bytes) -> list[str]:
    text = _text(record)
    if "\r" in text:
        raise NotARecord("a carriage return stands within the line")
    return text.split(",")


def _text(record: bytes) -> str:
    if b"\0" in record:
        raise NotARecord("holds a NUL byte")
    try:
        return record.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise NotARecord("not valid UTF-8") from None
