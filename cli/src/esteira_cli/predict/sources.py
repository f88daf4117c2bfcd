"""The files that `esteira predict` reads: CSV, plain or gzip, and Parquet. None is held in memory."""

import gzip
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from esteira.fields import from_text
from esteira.schema import Column
from esteira_cli.client.encoding import Unsayable, plain
from esteira_cli.predict.columns import from_value
from esteira_cli.predict.records import FileRefused, Malformed, Record, Records

_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_PARQUET_ROWS = 1000


class Source(Protocol):
    """A file of rows."""

    names: list[str]
    """Its columns."""
    unit: str
    """What a record's number counts: `line` or `row`."""
    size: int
    """Of the whole, in the measure of `position`."""

    def position(self) -> int:
        """How far it was read."""

    def records(self) -> Iterator[Record | Malformed]:
        """What stands in it, in its order."""

    def value(self, column: Column, given: Any) -> Any:
        """What is sent for a value of a record."""

    def text(self, given: Any) -> str:
        """How a value of a record is written to a CSV file."""


@contextmanager
def open_source(path: Path, null_values: Collection[str]) -> Iterator[Source]:
    """Opens a file; its first bytes say what it is, whatever its name.

    Raises:
        FileRefused: it cannot be read, or is damaged; also while it is being read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            if start == _PARQUET:
                yield ParquetSource(file)
            else:
                yield CsvSource(file, path.stat().st_size, start.startswith(_GZIP), null_values)
    except FileRefused as error:
        raise FileRefused(f"{path}: {error}") from error


class CsvSource:
    """A CSV file with a header.

    Args:
        file: its bytes.
        size: how many there are.
        packed: whether they are gzip.
        null_values: texts that mean a missing value.
    """

    unit = "line"

    def __init__(self, file: BinaryIO, size: int, packed: bool, null_values: Collection[str]) -> None:
        self._file = file
        self._null_values = null_values
        self.size = size
        self._records = Records(cast("BinaryIO", gzip.GzipFile(fileobj=file)) if packed else file)
        with _undamaged():
            self.names = self._records.header()

    def position(self) -> int:
        """In bytes of the file as it lies on disk."""
        return self._file.tell()

    def records(self) -> Iterator[Record | Malformed]:
        """The lines after the header."""
        with _undamaged():
            yield from self._records.after_header(len(self.names))

    def value(self, column: Column, given: Any) -> Any:
        """Typed as the column is."""
        return from_text(column.type, given, self._null_values)

    def text(self, given: Any) -> str:
        """As it stands in the file."""
        return str(given)


@contextmanager
def _undamaged() -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FileRefused(f"a damaged gzip file ({error})") from error


class ParquetSource:
    """A Parquet file; its values have types already."""

    unit = "row"

    def __init__(self, file: BinaryIO) -> None:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        try:
            self._file = ParquetFile(file)
        except (ArrowException, OSError) as error:
            raise FileRefused(f"a damaged Parquet file ({error})") from error
        self.names = list(self._file.schema_arrow.names)
        self.size = int(self._file.metadata.num_rows)
        self._position = 0

    def position(self) -> int:
        """In rows."""
        return self._position

    def records(self) -> Iterator[Record | Malformed]:
        """All rows."""
        from pyarrow import ArrowException

        try:
            for batch in self._file.iter_batches(batch_size=_PARQUET_ROWS):
                columns = [column.to_pylist() for column in batch.columns]
                for values in zip(*columns, strict=True):
                    self._position += 1
                    yield Record(self._position, values)
        except (ArrowException, OSError) as error:
            raise FileRefused(f"damaged after row {self._position} ({error})") from error

    def value(self, column: Column, given: Any) -> Any:
        """As it is, but for a time in a column of dates."""
        return from_value(column, given)

    def text(self, given: Any) -> str:
        """As JSON has it, without quotes."""
        try:
            said = plain(given)
        except Unsayable:
            said = given
        if said is None:
            return ""
        return str(said).lower() if isinstance(said, bool) else str(said)
