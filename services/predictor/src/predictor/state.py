"""What the keeper tells the workers: files in a folder that lives as long as the first process of the container.

Each is replaced whole, so that a reader sees the old one or the new one. A worker that is started again finds there
what serves, also while the bucket is away; a new container finds nothing, and is not ready before the pointers were
read.
"""

from pathlib import Path
from typing import TypeVar

import msgspec

from esteira.release import Pointer

_BOARD = "board.json"
_LOG = "log.json"
T = TypeVar("T")


class Refusal(msgspec.Struct, frozen=True):
    """A release that a pointer names and that does not serve."""

    pipeline: str
    version: str
    reason: str


class Fetched(msgspec.Struct, frozen=True):
    """A release on this machine, verified."""

    folder: str
    arrived: int = 0
    """Another number once it was fetched again."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Of one pipeline: the pointer to follow, with its releases, and what could not be had."""

    pointer: Pointer | None = None
    """None where no release was ever brought in."""
    champion: Fetched | None = None
    challenger: Fetched | None = None
    """Of the pointer's challenger, once it is here."""
    refused: Refusal | None = None
    """The release of a newer pointer, or of this one."""
    refused_challenger: Refusal | None = None


class Board(msgspec.Struct, frozen=True):
    """All notices."""

    looked: bool = False
    """Whether the pointers were read since the container was started."""
    notices: dict[str, Notice] = {}


class LogState(msgspec.Struct, frozen=True):
    """What the keeper did with the predictions that workers spooled."""

    published: int = 0
    lost: int = 0
    waiting_bytes: int = 0
    """In all spools."""
    settled: dict[str, int] = {}
    """Of each spool's predictions, by the name of its folder: how many are published or lost."""


class StateFolder:
    """Writes and reads these files. Each is written by one thread.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_board(self, board: Board) -> None:
        """For all workers to see."""
        self._write(_BOARD, board)

    def read_board(self) -> Board:
        """The newest; an empty one where there is none yet."""
        return self._read(_BOARD, Board)

    def stamp(self) -> tuple[int, int] | None:
        """Another value whenever the board was replaced; None where there is none yet."""
        try:
            found = (self.path / _BOARD).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def write_log(self, state: LogState) -> None:
        """For those who ask a worker."""
        self._write(_LOG, state)

    def read_log(self) -> LogState:
        """The newest."""
        return self._read(_LOG, LogState)

    def _write(self, name: str, content: msgspec.Struct) -> None:
        arriving = self.path / f".{name}"  # always the same: what a full disk cut short is written over
        arriving.write_bytes(msgspec.json.encode(content))
        arriving.replace(self.path / name)

    def _read(self, name: str, kind: type[T]) -> T:
        try:
            data = (self.path / name).read_bytes()
        except FileNotFoundError:
            return kind()
        return msgspec.json.decode(data, type=kind)
