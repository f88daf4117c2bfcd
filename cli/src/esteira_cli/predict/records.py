"""Reads the records of a CSV file one after another, and sets aside the lines that are none.

The same rules as etl has for files that train: RFC 4180 with a comma, in UTF-8. Where a quote is never closed, the line
that opens it is set aside alone and reading resumes at the next: one lost quote costs one line and not the file.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import msgspec

from esteira.exceptions import PermanentError

MAX_RECORD_LINES = 100
MAX_LINE_BYTES = 16 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANK = (b"", b"\r")
_FIELD = r'(?:"(?:[^"]++|"")*+"|[^",\r\n]*+)'
_RECORD = re.compile(rf"{_FIELD}(?:,{_FIELD})*+")


class FileRefused(PermanentError):
    """The file cannot be read; nothing of it is answered."""


class Record(msgspec.Struct, frozen=True):
    """One row of a file, in the order of its columns, and where it stands there."""

    line: int
    values: Sequence[Any]


class Malformed(msgspec.Struct, frozen=True):
    """A line that is no record."""

    line: int
    reason: str
    text: str
    """As it stands in the file; bytes that are no UTF-8 as surrogate escapes."""


class NotARecord(Exception):
    """The line cannot be split into fields; the message says why."""


class Records:
    """The records of an open file; holds no more of it than the lines of one record.

    Args:
        file: bytes, read from their beginning.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._ahead: deque[bytes] = deque()
        self._line = 1
        self._ended = False

    def header(self) -> list[str]:
        """The names in line 1.

        Raises:
            FileRefused: there is no line 1, or it cannot be split into fields.
        """
        line = self._peek(0)
        if line is None:
            raise FileRefused("the file is empty: expected CSV (comma, UTF-8) with a header line")
        try:
            names = split(line.removeprefix(_BYTE_ORDER_MARK))
        except NotARecord as error:
            raise FileRefused(f"no CSV file: line 1: {error}") from error
        self._drop(1)
        return names

    def after_header(self, width: int) -> Iterator[Record | Malformed]:
        """Each line that is not blank is part of exactly one of these."""
        while (line := self._peek(0)) is not None:
            number = self._line
            if line in _BLANK:
                self._drop(1)
                continue
            try:
                fields, span = self._take(line, width)
            except NotARecord as error:
                self._drop(1)
                text = line.removesuffix(b"\r").decode(errors="surrogateescape")
                yield Malformed(number, str(error), text)
                continue
            self._drop(span)
            yield Record(number, fields)

    def _take(self, line: bytes, width: int) -> tuple[list[str], int]:
        span = self._span(line)
        if span == 1:
            return _of_width(split(line), width), 1
        try:
            return _of_width(split(b"\n".join(list(self._ahead)[:span])), width), span
        except NotARecord:
            raise NotARecord("a quote is opened and not closed") from None

    def _span(self, line: bytes) -> int:
        """How many lines there are until the quotes are balanced."""
        if line.count(b'"') % 2 == 0:
            return 1
        for position in range(1, MAX_RECORD_LINES):
            if (later := self._peek(position)) is None:
                break
            if later.count(b'"') % 2:
                return position + 1
        raise NotARecord("a quote is opened and not closed")

    def _peek(self, position: int) -> bytes | None:
        while len(self._ahead) <= position and not self._ended:
            line = self._file.readline(MAX_LINE_BYTES + 1)
            if len(line) > MAX_LINE_BYTES:
                number = self._line + len(self._ahead)
                raise FileRefused(f"line {number} has more than {MAX_LINE_BYTES >> 20} MiB: is it a CSV file?")
            if line:
                self._ahead.append(line.removesuffix(b"\n"))
            self._ended = not line
        return self._ahead[position] if len(self._ahead) > position else None

    def _drop(self, lines: int) -> None:
        for _ in range(lines):
            self._ahead.popleft()
        self._line += lines


def _of_width(row: list[str], width: int) -> list[str]:
    if len(row) != width:
        raise NotARecord(f"expected {width} fields, got {len(row)}")
    return row


def split(record: bytes) -> list[str]:
    """The fields of one record, without its line end.

    Raises:
        NotARecord: it breaks RFC 4180, or is not UTF-8.
    """
    if b"\0" in record:
        raise NotARecord("holds a NUL byte")
    try:
        text = record.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise NotARecord("not valid UTF-8") from None
    if '"' in text:
        return _quoted_fields(text)
    if "\r" in text:
        raise NotARecord("a carriage return stands within the line")
    return text.split(",")


def _quoted_fields(text: str) -> list[str]:
    if _RECORD.fullmatch(text) is None:
        raise NotARecord("a quote stands where none may, or is not closed")
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise NotARecord(f"not CSV: {error}") from error
