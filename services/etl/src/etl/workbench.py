"""A pipeline made ready to prepare files: its statement and label compiled, its reference tables loaded in DuckDB."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from esteira.exceptions import PipelineInvalid
from esteira.features import create_references
from esteira.pipeline import LoadedPipeline, load_pipeline
from esteira.schema import DUCKDB_TYPES, quote
from esteira.sqlite_form import NotTranslatable
from esteira.statement import Statement, compile_statement
from etl.serving_form import ServingForm

logger = logging.getLogger(__name__)

_MAX_NAME = 63
"""Bytes of a name in Postgres."""
_NUMERIC = re.compile(r"(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL\(.*\)|BOOLEAN)")


class Workbench:
    """Where files of one pipeline are prepared. Threads may share it; each file has a cursor of its own."""

    def __init__(self, pipeline: LoadedPipeline, threads: int = 2) -> None:
        """Compiles the pipeline.

        Raises:
            PipelineInvalid: with file, line, what is wrong and what to do.
        """
        self.pipeline = pipeline
        self.statement: Statement = compile_statement(pipeline)
        _check_names(pipeline, self.statement)
        self._connection = duckdb.connect(":memory:", config={"threads": threads})
        create_references(self._connection, pipeline.folder, pipeline.spec.reference)
        # From here on neither features.sql nor the label reaches files or the network.
        self._connection.execute("SET enable_external_access = false")
        _check_label(self._connection, pipeline)
        self.serving_form = self._translate()

    def _translate(self) -> ServingForm | None:
        """The form in which single rows are served, if the statement has one."""
        try:
            return ServingForm(self.pipeline, self.statement, self._connection.cursor())
        except NotTranslatable as error:
            facts = {"pipeline": self.pipeline.name, "reason": str(error)}
            logger.info("features.sql serves in DuckDB alone", extra=facts)
            return None

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor whose temporary tables no other sees."""
        cursor = self._connection.cursor()
        try:
            yield cursor
        finally:
            cursor.close()

    def close(self) -> None:
        """Gives the memory back."""
        if self.serving_form is not None:
            self.serving_form.close()
        self._connection.close()


def make_workbenches(directory: Path) -> dict[str, Workbench]:
    """Loads and compiles every pipeline below `directory`.

    Raises:
        PipelineInvalid: the mistakes of all pipelines that have one, a line each.
    """
    made: dict[str, Workbench] = {}
    mistakes: list[str] = []
    for name in find_folders(directory):
        try:
            made[name] = Workbench(load_pipeline(directory / name))
        except PipelineInvalid as error:
            mistakes.append(str(error))
    if mistakes:
        raise PipelineInvalid("\n".join(mistakes))
    return made


def find_folders(directory: Path) -> list[str]:
    """The names of the pipelines' folders.

    Raises:
        PipelineInvalid: there is no such directory.
    """
    if not directory.is_dir():
        raise PipelineInvalid(f"{directory}: no such directory; set PIPELINES_DIR to the folder of the pipelines")
    return sorted(path.parent.name for path in directory.glob("*/pipeline.yaml"))


def _check_names(pipeline: LoadedPipeline, statement: Statement) -> None:
    """Feature names become columns of Postgres."""
    for feature in statement.features:
        if len(feature.name.encode()) > _MAX_NAME:
            path = pipeline.folder / "features.sql"
            raise PipelineInvalid(f"{path}:1: feature {feature.name} has more than {_MAX_NAME} bytes; shorten its name")


def _check_label(connection: duckdb.DuckDBPyConnection, pipeline: LoadedPipeline) -> None:
    path, label = pipeline.folder / "pipeline.yaml", pipeline.spec.label
    columns = ", ".join(f"NULL::{DUCKDB_TYPES[c.type]} AS {quote(c.name)}" for c in pipeline.columns)
    query = f"SELECT 0 AS _row, ({label.sql}\n) FROM (SELECT {columns}) LIMIT 0"  # noqa: S608  the pipeline's own
    try:
        kind = str(connection.execute(query).description[1][1])
    except duckdb.Error as error:
        what = str(error).split("\n\nLINE")[0].replace("\n", " ")
        raise PipelineInvalid(f"{path}: label {label.name}: {what}; mend its sql") from error
    expected = r"BOOLEAN" if pipeline.spec.task == "classification" else _NUMERIC
    if not re.fullmatch(expected, kind):
        wanted = "a boolean" if pipeline.spec.task == "classification" else "a number"
        raise PipelineInvalid(f"{path}: label {label.name} is {kind}; {pipeline.spec.task} needs {wanted}: cast it")
