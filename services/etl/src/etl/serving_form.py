"""Holds the SQLite form of features.sql, in which single rows are served, against DuckDB for every row of a file."""

import logging
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from esteira.pipeline import LoadedPipeline
from esteira.schema import quote
from esteira.sqlite_form import NotTranslatable, copy_references, form_sha256, translate
from esteira.sqlite_query import SqliteQuery, Undecided, connect
from esteira.statement import FeatureColumn, Statement

logger = logging.getLogger(__name__)

CHUNK = 10_000


class ServingForm:
    """The SQLite form of one pipeline's features.sql; threads may share it."""

    def __init__(self, pipeline: LoadedPipeline, statement: Statement, connection: duckdb.DuckDBPyConnection) -> None:
        """Translates the statement.

        Args:
            pipeline: whose statement it is.
            statement: compiled.
            connection: holds the reference tables.

        Raises:
            NotTranslatable: it keeps its DuckDB form alone.
        """
        self._pipeline = pipeline
        self._features = statement.features
        self._columns = [column for column in pipeline.columns if column.known == "before"]
        form = translate(statement.sql, self._columns)
        self.sha256 = form_sha256(form)
        handle, name = tempfile.mkstemp(suffix=".sqlite")
        os.close(handle)
        self._file = Path(name)
        try:
            target = connect(name)
            copy_references(connection, pipeline.spec.reference, statement.sql, target)
            target.close()
            self._query = SqliteQuery.over(form, self._columns, self._file)
        except Undecided as error:
            self.close()
            raise NotTranslatable(str(error)) from error
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Deletes its copy of the reference tables."""
        self._file.unlink(missing_ok=True)

    def is_proved(self, cursor: duckdb.DuckDBPyConnection, part: pa.Table) -> bool:
        """Whether it gives the features of `part` from the rows of the cursor's table `raw`, in the part's order.

        Rows that it leaves to DuckDB prove nothing, and disprove nothing.
        """
        names = ", ".join(quote(column.name) for column in self._columns)
        rows = cursor.execute(f"SELECT {names} FROM raw ORDER BY _row")  # noqa: S608
        place = [self._query.names.index(feature.name) for feature in self._features]
        for start in range(0, part.num_rows, CHUNK):
            expected = self._expected(part.slice(start, CHUNK))
            for row, features in zip(rows.fetchmany(CHUNK), expected, strict=True):
                with suppress(Undecided):
                    (found,) = self._query.run_rows([row])
                    if (different := self._first_difference([found[at] for at in place], features)) is not None:
                        self._tell(row, different)
                        return False
        return True

    def _expected(self, part: pa.Table) -> Iterator[tuple[Any, ...]]:
        return zip(*(part.column(feature.name).to_pylist() for feature in self._features), strict=True)

    def _first_difference(self, found: list[Any], expected: tuple[Any, ...]) -> tuple[FeatureColumn, Any, Any] | None:
        for feature, value, wanted in zip(self._features, found, expected, strict=True):
            if value != wanted and not _same(feature, value, wanted):
                return feature, value, wanted
        return None

    def _tell(self, row: tuple[Any, ...], different: tuple[FeatureColumn, Any, Any]) -> None:
        feature, found, expected = different
        facts = {"pipeline": self._pipeline.name, "feature": feature.name}
        values = {"sqlite": repr(found), "duckdb": repr(expected), "row": repr(row)[:500]}
        logger.warning("SQLite form of features.sql differs; it will not serve", extra={**facts, **values})


def _same(feature: FeatureColumn, value: Any, expected: Any) -> bool:
    """As parts hold them: numbers are doubles, and what is not finite is missing."""
    if feature.kind == "categorical" or isinstance(value, str) or value is None:
        return bool(value == expected)
    number = float(value)
    return bool((number if math.isfinite(number) else None) == expected)
