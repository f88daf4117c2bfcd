"""The raw data of a demo: files to upload, and requests to send.

A pipeline that can be played has a `demo.yaml` in its folder. It names a CSV file of an installed package and the
integer column that cuts it into months; the rows of a file are the lines of the original, untouched.
"""

import csv
import io
import random
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import msgspec
import yaml

from esteira.exceptions import PipelineInvalid
from esteira.pipeline import LoadedPipeline, load_pipeline
from esteira.schema import Column, Row, check_value

Span = tuple[int, int]


class DemoPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of demo.yaml."""

    package: str
    """The distribution that brings the data."""
    file: str
    """A .csv file, or a .zip of one, within the package's folder."""
    split_by: str
    """The integer column that says which month a row belongs to."""
    history: str
    """The months that the first model learns from, such as `1-3`."""
    replay: str
    """The months that go by, one at a time."""
    requests: int
    """Rows of each month that are sent as requests."""


def parse_span(text: str) -> Span:
    """Reads `4-12` or `5`.

    Raises:
        ValueError: it is neither.
    """
    first, _, last = text.partition("-")
    span = int(first), int(last or first)
    if not 1 <= span[0] <= span[1]:
        raise ValueError(f"{text!r} is no span of months such as 4-12")
    return span


class DemoSource:
    """The months of one pipeline's demo data, cut into files below `folder`."""

    def __init__(self, pipeline_folder: Path, folder: Path) -> None:
        self.pipeline: LoadedPipeline = load_pipeline(pipeline_folder)
        self.plan = _read_plan(pipeline_folder / "demo.yaml")
        self._folder = folder

    def prepare(self) -> None:
        """Cuts the original into one file a month.

        Raises:
            PipelineInvalid: the package or its file is not there.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with _open_text(_locate(self.plan)) as text:
            header = text.readline()
            position = next(csv.reader([header])).index(self.plan.split_by)
            files: dict[int, io.TextIOWrapper] = {}
            try:
                for line in text:
                    month = int(next(csv.reader([line]))[position])
                    self._file_of(files, month, header).write(line)
            finally:
                for file in files.values():
                    file.close()

    def _file_of(self, files: dict[int, io.TextIOWrapper], month: int, header: str) -> io.TextIOWrapper:
        if month not in files:
            files[month] = self.path(month).open("w", encoding="utf-8", newline="")
            files[month].write(header)
        return files[month]

    def path(self, month: int) -> Path:
        """The raw file of a month."""
        return self._folder / f"month-{month:02d}.csv"

    def history(self) -> Path:
        """One raw file with all months of the history."""
        first, last = parse_span(self.plan.history)
        target = self._folder / f"months-{first:02d}-{last:02d}.csv"
        with target.open("w", encoding="utf-8", newline="") as file:
            for month in range(first, last + 1):
                header, _, body = self.path(month).read_text("utf-8").partition("\n")
                file.write((f"{header}\n" if month == first else "") + body)
        return target

    def sample(self, month: int, rows: int) -> list[Row]:
        """Draws `rows` rows of the month, the same ones each time, with all their columns typed."""
        found = list(self._rows(month))
        drawn = random.Random(month).sample(found, min(rows, len(found)))  # noqa: S311  no secret
        return [
            {column.name: self._typed(column, row[column.name]) for column in self.pipeline.columns} for row in drawn
        ]

    def request(self, row: Row) -> dict[str, Any]:
        """What a client that does not know the future sends of a row."""
        known = (column.name for column in self.pipeline.columns if column.known == "before")
        values: dict[str, Any] = msgspec.to_builtins({name: row[name] for name in known})
        return values

    def _rows(self, month: int) -> Iterator[dict[str, str]]:
        with self.path(month).open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)

    def _typed(self, column: Column, text: str) -> Any:
        if text in self.pipeline.spec.null_values:
            return None
        parsed: Any = text
        if column.type in ("integer", "number"):
            parsed = float(text)
        if column.type == "boolean":
            parsed = text.lower() == "true"
        return check_value(column, parsed)


def _read_plan(path: Path) -> DemoPlan:
    try:
        return msgspec.convert(yaml.safe_load(path.read_text("utf-8")), DemoPlan)
    except FileNotFoundError:
        raise PipelineInvalid(f"{path}: missing; a pipeline needs it to be played as a demo") from None
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise PipelineInvalid(f"{path}: {error}; mend it") from error


def _locate(plan: DemoPlan) -> Path:
    try:
        found = distribution(plan.package).locate_file(Path(plan.package) / plan.file)
    except PackageNotFoundError:
        raise PipelineInvalid(
            f"the package {plan.package} with the demo's data is not installed; run `make install`"
        ) from None
    path = Path(str(found))
    if not path.is_file():
        raise PipelineInvalid(f"the package {plan.package} has no file {plan.file}; another version may")
    return path


def _open_text(path: Path) -> io.TextIOWrapper:
    if path.suffix != ".zip":
        return path.open(encoding="utf-8", newline="")
    archive = zipfile.ZipFile(path)
    (name,) = [name for name in archive.namelist() if name.endswith(".csv")]
    return io.TextIOWrapper(archive.open(name), encoding="utf-8", newline="")
