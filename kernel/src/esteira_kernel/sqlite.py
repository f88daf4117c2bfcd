"""Statements of SQLite run in native code, from JSON to JSON: see sqlite.zig.

They run in the library that Python's own `sqlite3` uses, on connections that it opened. SQLite tells the handle of each
new connection to its automatic extensions, of which one here notes it.
"""

import _sqlite3
import atexit
import ctypes
import sqlite3
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from esteira_kernel.library import find_function

SMALL_ROWS: Final = 16
_SMALL_BYTES: Final = 1 << 14
"""Of so many rows and bytes of results at most, the interpreter is kept, and the place where they are written."""
_VALUE_BYTES: Final = 32
_SPARE_BYTES: Final = 1 << 10
"""Of results: what there is room for beside the bytes of the parameters, by value and in all. Texts may need more."""
_NAMES: Final = (
    *("bind_null", "bind_int64", "bind_double", "bind_text", "clear_bindings", "step", "reset"),
    *("column_type", "column_int64", "column_double", "column_text", "column_bytes"),
)


class _Functions(ctypes.Structure):
    """`Functions` of sqlite.zig."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in _NAMES)


class _Query(ctypes.Structure):
    """`Query` of sqlite.zig."""

    _fields_ = (
        *(("functions", ctypes.c_void_p), ("statement", ctypes.c_void_p), ("parameters", ctypes.c_size_t)),
        *(("columns", ctypes.c_void_p), ("columns_count", ctypes.c_size_t)),
    )


_run, _run_short = find_function(
    "run_query",
    [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t],
    ctypes.c_size_t,
)


class _Opened(threading.local):
    """By each thread."""

    handle: int | None = None
    """Of the last connection."""


_opened = _Opened()


def _note(handle: int, _: Any, __: Any) -> int:
    _opened.handle = handle
    return 0


_EXTENSION: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(_note)


@cache
def _find_sqlite() -> tuple[Any, _Functions] | None:
    """SQLite, and the functions that native code calls; None where Python's module has it within itself.

    From the first call on, SQLite calls `_EXTENSION` for each connection of the process.
    """
    try:
        library = ctypes.PyDLL(_sqlite3.__file__)  # by it, what it was linked with is found too
        found = {name: getattr(library, f"sqlite3_{name}") for name in _NAMES}
        library.sqlite3_prepare_v2.argtypes = [
            *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)
        ]
        library.sqlite3_finalize.argtypes = [ctypes.c_void_p]
        for name in ("sqlite3_bind_parameter_count", "sqlite3_column_count"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        if library.sqlite3_auto_extension(_EXTENSION) != sqlite3.SQLITE_OK:
            return None
    except (AttributeError, OSError):
        return None
    atexit.register(library.sqlite3_cancel_auto_extension, _EXTENSION)
    return library, _Functions(**{name: ctypes.cast(function, ctypes.c_void_p) for name, function in found.items()})


def open_with_handle(open_connection: Callable[[], sqlite3.Connection]) -> tuple[sqlite3.Connection, int | None]:
    """Opens a connection, and gives its handle with it; None where that is not known.

    Args:
        open_connection: opens this one alone.
    """
    _find_sqlite()
    _opened.handle = None
    return open_connection(), _opened.handle


class Query:
    """A statement that gives one row for each row of parameters. One thread at a time.

    Args:
        connection: on which it runs; it is kept open.
        handle: of the connection, see `open_with_handle`.
        statement: its parameters are numbered from 1 on.
        columns: the positions of those that are wanted, in their order.

    Raises:
        ValueError: SQLite does not take the statement, or it has no such column.
    """

    def __init__(self, connection: sqlite3.Connection, handle: int, statement: str, columns: Sequence[int]) -> None:
        self._statement = ctypes.c_void_p()
        if (found := _find_sqlite()) is None:
            raise ValueError("SQLite is not to be found in Python's module")
        self._library, self._functions = found
        text = statement.encode()
        if self._library.sqlite3_prepare_v2(handle, text, len(text), ctypes.byref(self._statement), None) != 0:
            raise ValueError("SQLite does not take the statement")
        if not all(0 <= column < self._library.sqlite3_column_count(self._statement) for column in columns):
            raise ValueError(f"the statement has not all of the columns {columns}")
        self._connection = connection
        self._columns = (ctypes.c_int * len(columns))(*columns)
        self._query = _Query(
            ctypes.addressof(self._functions),
            self._statement,
            self._library.sqlite3_bind_parameter_count(self._statement),
            ctypes.addressof(self._columns),
            len(columns),
        )
        self._address = ctypes.addressof(self._query)
        self._kept = ctypes.create_string_buffer(_SMALL_BYTES)
        self._kept_address = ctypes.addressof(self._kept)

    def run(self, rows: bytes, count: int) -> bytes | None:
        """What the statement gives for each row, as JSON: `[[value, …], …]`.

        Args:
            rows: of parameters, in the same form.
            count: how many there are.

        Returns:
            None where a text has an escape or is not UTF-8, where SQLite fails or gives another number of rows than one
            for a row, and where the texts are too long.
        """
        size = len(rows) + count * len(self._columns) * _VALUE_BYTES + _SPARE_BYTES
        if count <= SMALL_ROWS and size <= _SMALL_BYTES:
            written = _run_short(self._address, rows, len(rows), self._kept_address, _SMALL_BYTES)
            return ctypes.string_at(self._kept_address, written) if written else None
        text = ctypes.create_string_buffer(size)
        written = _run(self._address, rows, len(rows), ctypes.addressof(text), size)
        return ctypes.string_at(text, written) if written else None

    def __del__(self) -> None:
        if self._statement:
            self._library.sqlite3_finalize(self._statement)
