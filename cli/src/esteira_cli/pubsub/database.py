"""The SQLite file that holds everything: one writer, one lock, write-ahead log."""

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from esteira_cli.pubsub.exceptions import StateLocked

SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (
    name TEXT PRIMARY KEY, definition BLOB NOT NULL, published INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS subscriptions (
    name TEXT PRIMARY KEY, topic TEXT NOT NULL, definition BLOB NOT NULL,
    delivered INTEGER NOT NULL DEFAULT 0, acked INTEGER NOT NULL DEFAULT 0, dead_lettered INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB NOT NULL, attributes TEXT NOT NULL,
    ordering_key TEXT NOT NULL, publish_time REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS deliveries (
    subscription TEXT NOT NULL, message_id INTEGER NOT NULL, copy INTEGER NOT NULL,
    available_at REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, holder TEXT,
    PRIMARY KEY (subscription, message_id, copy)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (subscription, available_at);
CREATE INDEX IF NOT EXISTS deliveries_message ON deliveries (message_id);
"""


class Database:
    """One connection that threads share by turns.

    The log is written at every commit, so what was committed outlives the death of the process at any moment
    (`synchronous=NORMAL`: a loss of power may cost the last commits, never consistency).
    """

    def __init__(self, state_dir: Path) -> None:
        state_dir.mkdir(parents=True, exist_ok=True)
        self._guard = _claim_folder(state_dir)
        self._lock = threading.Lock()
        path = state_dir / "pubsub.sqlite"
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.executescript(SCHEMA)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yields the connection within one write transaction; commits at the end, rolls back on an error."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yields the connection for single SELECTs."""
        with self._lock:
            yield self._connection

    def close(self) -> None:
        """Closes the file and gives the folder free."""
        with self._lock:
            self._connection.close()
            os.close(self._guard)


def _claim_folder(state_dir: Path) -> int:
    """Locks the folder for the life of this process; the system frees it even after kill -9."""
    descriptor = os.open(state_dir / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StateLocked(
            f"{state_dir}: another Pub/Sub emulator uses this state folder; stop it, or pass another --state-dir"
        ) from error
    return descriptor
