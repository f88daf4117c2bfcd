"""The SQLite form of features.sql from JSON to JSON, in native code: see `esteira_kernel.sqlite`.

Apart from `esteira.sqlite_query`, for only what serves has the kernel.
"""

import logging
import sqlite3
from collections.abc import Callable, Sequence

import msgspec

from esteira.schema import Column, Value
from esteira.sqlite_query import SqliteQuery
from esteira_kernel.sqlite import Query, open_with_handle

logger = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode


class JsonQuery(SqliteQuery):
    """A translated statement that can give its values as JSON too. Safe to share by threads."""

    def __init__(
        self,
        form: str,
        columns: Sequence[Column],
        open_database: Callable[[], sqlite3.Connection],
        wanted: Sequence[str],
    ) -> None:
        """Prepares the statement.

        Args:
            form: as the other arguments, see `SqliteQuery`.
            columns: see there.
            open_database: see there.
            wanted: names of values in the order in which `run_json` gives them.

        Raises:
            Undecided: SQLite does not take it.
        """
        super().__init__(form, columns, open_database)
        self._positions = [self.names.index(name) for name in wanted]
        self._idle: list[Query] = []
        """The last used is used next: it is the one that the processor's caches hold."""
        self._is_runnable = True

    def run_json(self, rows: Sequence[Sequence[Value]]) -> bytes | None:
        """The wanted values of each row, `[[value, …], …]`, made without an object of each.

        Args:
            rows: see `run_rows`.

        Returns:
            None where `run_rows` is to be asked, which says what is wrong, if anything is.

        Raises:
            Undecided: a value lies beyond what was proved.
        """
        parameters = _encode([self._parameters(row) for row in rows])
        try:
            query = self._idle.pop()
        except IndexError:
            if (made := self._make_query()) is None:
                return None
            query = made
        found = query.run(parameters, len(rows))
        self._idle.append(query)
        return found

    def _make_query(self) -> Query | None:
        """On a connection of its own; None where native code cannot run it."""
        if not self._is_runnable:
            return None
        connection, handle = open_with_handle(self._open)
        try:
            if handle is not None:
                return Query(connection, handle, self._form, self._positions)
        except ValueError as error:
            logger.warning("SQLite form not run in native code", extra={"reason": str(error)})
        self._is_runnable = False
        return None
