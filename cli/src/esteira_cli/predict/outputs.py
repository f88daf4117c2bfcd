"""What `esteira predict` writes: answers as CSV or Parquet, and the rows that were refused.

A file is written under a name of its own, `<name>.partial`, and takes its place when it is whole. What a killed run
leaves is written over by the next.
"""

import csv
import fcntl
import io
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, Self

from esteira.exceptions import PermanentError
from esteira.schema import Column, Refused, Value, check_value
from esteira_cli.client.encoding import plain
from esteira_cli.predict.sending import Row

ANSWER: Final = ("score", "label", "prediction_id", "model_version")
ROW_GROUP: Final = 50_000
ENDINGS: Final = (".csv", ".parquet")


class CannotWrite(PermanentError):
    """The output cannot be written."""


class Draft:
    """A file that appears under its name only when it is whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f"{path.name}.partial")
        self._file: BinaryIO | None = None

    def open(self) -> BinaryIO:
        """Begins it.

        Raises:
            CannotWrite: another run is writing it, or the folder does not take it.
        """
        try:
            self._file = self._locked()
        except OSError as error:
            raise CannotWrite(f"{self.path} cannot be written: {error.strerror}") from error
        self._file.truncate()
        return self._file

    def _locked(self) -> BinaryIO:
        while True:
            file = os.fdopen(os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise CannotWrite(f"{self.path} is being written by another run; wait, or name another") from None
            if self._partial.exists() and os.fstat(file.fileno()).st_ino == self._partial.stat().st_ino:
                return file
            file.close()  # another run has finished it meanwhile

    def commit(self) -> None:
        """Puts it in its place."""
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._partial.replace(self.path)
        self._file.close()
        self._file = None

    def discard(self) -> None:
        """Removes what was written of it, unless it is in its place."""
        if self._file is not None:
            self._partial.unlink(missing_ok=True)
            self._file.close()
            self._file = None


class Output(Protocol):
    """Takes answers in the order of the file."""

    def write(self, row: Row, entity: Sequence[str], answer: dict[str, Any]) -> None:
        """Adds one; `entity` are its entity columns as the file has them."""

    def close(self) -> None:
        """Writes what was held back; a second time does nothing."""


class CsvOutput:
    """Answers as CSV: the file's entity columns as they stand there, then `ANSWER`."""

    def __init__(self, file: BinaryIO, entity: Sequence[Column]) -> None:
        self._closed = False
        self._text = _text(file)
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow([*(column.name for column in entity), *ANSWER])

    def write(self, row: Row, entity: Sequence[str], answer: dict[str, Any]) -> None:  # noqa: ARG002
        """Adds a line."""
        label = "" if answer["label"] is None else str(answer["label"]).lower()
        self._writer.writerow([*entity, answer["score"], label, answer["prediction_id"], answer["model_version"]])

    def close(self) -> None:
        """Leaves the file open; a second time does nothing."""
        if not self._closed:
            self._closed = True
            self._text.detach()


class ParquetOutput:
    """Answers as Parquet, the entity columns with the types of the pipeline; times in UTC."""

    def __init__(self, file: BinaryIO, entity: Sequence[Column]) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        self._entity = [Column(name=column.name, type=column.type, nullable=True) for column in entity]
        types = {
            "integer": pa.int64(),
            "number": pa.float64(),
            "string": pa.string(),
            "boolean": pa.bool_(),
            "timestamp": pa.timestamp("us", "UTC"),
            "date": pa.date32(),
        }
        answer = zip(ANSWER, (types["number"], types["boolean"], types["string"], types["string"]), strict=True)
        self._schema = pa.schema([*((column.name, types[column.type]) for column in entity), *answer])
        self._writer = ParquetWriter(file, self._schema)
        self._rows: list[list[Any]] = []

    def write(self, row: Row, entity: Sequence[str], answer: dict[str, Any]) -> None:  # noqa: ARG002
        """Adds a row."""
        typed = [_typed(column, row) for column in self._entity]
        self._rows.append([*typed, *(answer[name] for name in ANSWER)])
        if len(self._rows) == ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        columns = [list(values) for values in zip(*self._rows, strict=True)]
        arrays = [pa.array(c, field.type) for c, field in zip(columns, self._schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows.clear()

    def close(self) -> None:
        """Ends the file, and leaves it open; a second time does nothing."""
        if self._rows:
            self._flush()
        self._writer.close()


def _typed(column: Column, row: Row) -> Value:
    try:
        return check_value(column, plain(row.sent.get(column.name)))
    except Refused as error:
        raise CannotWrite(
            f"row {row.line}: the predictor answers it, and {column.name} {error}; the pipeline's columns changed "
            "meanwhile: the same command begins again"
        ) from error


class RefusedRows:
    """The rows without an answer, with where they stand and why; `<output>.refused.csv`.

    After `line` (or `row`) and `reasons` come the columns of the input, so that a row can be mended and sent again.
    """

    def __init__(self, output: Path, unit: str, names: Sequence[str]) -> None:
        self.draft = Draft(output.with_name(f"{output.name}.refused.csv"))
        self._names = [unit, "reasons", *names]
        self._text: io.TextIOWrapper | None = None

    def write(self, line: int, reasons: Sequence[str], values: Sequence[str]) -> None:
        """Adds one; the first begins the file."""
        if self._text is None:
            self._text = _text(self.draft.open())
            csv.writer(self._text, lineterminator="\n").writerow(self._names)
        csv.writer(self._text, lineterminator="\n").writerow([line, "; ".join(reasons), *values])

    def commit(self) -> None:
        """Puts the file in its place; without a refused row, removes that of an earlier run."""
        if self._text is None:
            self.draft.path.unlink(missing_ok=True)
            return
        self._text.flush()
        self._text.detach()
        self.draft.commit()


class Outputs:
    """Both files of a run; used as a context, it leaves nothing half written."""

    def __init__(self, path: Path, entity: Sequence[Column], unit: str, names: Sequence[str]) -> None:
        self._draft = Draft(path)
        self._entity = entity
        self.refused = RefusedRows(path, unit, names)
        self.answers: Output

    def __enter__(self) -> Self:
        kind = ParquetOutput if self._draft.path.suffix == ".parquet" else CsvOutput
        file = self._draft.open()
        try:
            self.answers = kind(file, self._entity)
        except BaseException:
            self._draft.discard()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # of a full disk, which was told already
            self.answers.close()
        self._draft.discard()
        self.refused.draft.discard()

    def commit(self) -> None:
        """Puts both in their places, the answers last: where they are, the refused rows are too."""
        self.answers.close()
        self.refused.commit()
        self._draft.commit()


def _text(file: BinaryIO) -> io.TextIOWrapper:
    return io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
