"""Workers wake the keeper: datagrams to a socket in the state folder.

A hint may be lost with the keeper that should have heard it: the next one looks at everything when it starts.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from esteira.exceptions import Unavailable

LOOK = "look"
"""At the pointers."""
VERIFY = "verify"
"""The releases that were fetched, and fetch anew what is damaged."""
ANSWER_SECONDS = 10.0
_NAME = "keeper"
_LARGEST = 4096


class Heard(list[str]):
    """Hints that came together: their words, with the names of those who wait for an answer behind them."""

    @property
    def verify(self) -> bool:
        """Whether one of them asks for that."""
        return any(text.startswith(VERIFY) for text in self)

    def askers(self) -> list[str]:
        """Who waits for an answer."""
        return [name for _, _, name in (text.partition(" ") for text in self) if name]


class Ear:
    """The keeper's end; a newer one takes the place of an older.

    Args:
        folder: of the state.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / _NAME).unlink(missing_ok=True)
        self._socket = _bind(folder, _NAME)

    def wait(self, seconds: float) -> Heard:
        """The hints of this time; it ends with the first, and with those that came with it."""
        found = Heard()
        self._socket.settimeout(seconds)
        with suppress(TimeoutError, BlockingIOError):
            while True:
                found.append(self._socket.recv(_LARGEST).decode(errors="replace"))
                self._socket.settimeout(0)
        return found

    def answer(self, names: list[str], error: str = "") -> None:
        """Tells those who asked that it is done, or why it could not be."""
        for name in names:
            _send(self._folder, name, error)

    def close(self) -> None:
        """Hears no more."""
        self._socket.close()


class Mouth:
    """A worker's end.

    Args:
        folder: of the state.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def hint(self, word: str) -> bool:
        """Wakes the keeper; whether one hears."""
        return _send(self._folder, _NAME, word)

    def ask(self, word: str, seconds: float = ANSWER_SECONDS) -> None:
        """Wakes the keeper and waits until it has done so.

        Raises:
            Unavailable: it could not, or there is none.
        """
        name = f"asker-{uuid4().hex}"
        try:
            answers = _bind(self._folder, name)
        except OSError:  # the folder goes with the keeper
            raise _nobody() from None
        try:
            answers.settimeout(seconds)
            if not self.hint(f"{word} {name}"):
                raise _nobody()
            if error := answers.recv(_LARGEST).decode(errors="replace"):
                raise Unavailable(error)
        except TimeoutError:
            raise Unavailable(f"the pointers were not read within {seconds:g} s") from None
        finally:
            answers.close()
            (self._folder / name).unlink(missing_ok=True)


def _nobody() -> Unavailable:
    return Unavailable("the process that follows the pointers is being started again; ask again soon")


def _bind(folder: Path, name: str) -> socket.socket:
    with _short(folder, name) as path:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        made.bind(path)
    return made


def _send(folder: Path, name: str, text: str) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, _short(folder, name) as path:
            sender.setblocking(False)
            sender.sendto(text.encode()[:_LARGEST], path)
    except BlockingIOError:  # so many wait there already that it will look
        return True
    except OSError:
        return False
    return True


@contextmanager
def _short(folder: Path, name: str) -> Iterator[str]:
    """A socket's path may have 107 bytes; a folder's, more."""
    at = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{at}/{name}"
    finally:
        os.close(at)
