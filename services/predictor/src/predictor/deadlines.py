"""How long the body of a request may take to come.

Neither server bounds it, and no read of `wsgi.input` can be given a timeout; each body that is waited for holds a
thread. So a thread of the worker looks after those that read, and ends the connection of a client that is late: the
read returns then, and raises `RequestTimeout`, which is answered 408.

- gunicorn says which socket a request came by. Its reading side is shut; the client gets the answer as any other.
- granian says no more of a client than its address. But it answers for whoever holds the request's protocol object, and
  ends the connection where a body is shorter than its `Content-Length`: so the answer is sent here, and promises a
  byte too many.
"""

import io
import itertools
import logging
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from threading import get_ident
from time import monotonic, sleep
from typing import Any, Protocol

from werkzeug.exceptions import RequestTimeout

from esteira.web import error_response

logger = logging.getLogger(__name__)

BODY_SECONDS = 30.0
"""By default: 140 kB a second for the largest body."""
LOOK_SECONDS = 1.0
"""Between two looks at those that read, at most."""
FAREWELL_SECONDS = 0.5
"""For an answer to reach its client before its connection ends."""
Environ = dict[str, Any]


class Stream(Protocol):
    """What `wsgi.input` is."""

    def read(self, size: int, /) -> bytes:
        """Waits until so many bytes have come, or the body has ended."""


class Deadlines:
    """Looks after the requests whose bodies are being read. Threads share it.

    Args:
        seconds: that a body may take.
    """

    def __init__(self, seconds: float = BODY_SECONDS) -> None:
        self._seconds = seconds
        self._numbers = itertools.count()
        self._reading: dict[int, tuple[float, int, Environ]] = {}
        """Since when each body is read, by which thread, of which request. Whoever takes an entry out decides: the
        thread that the body came in time, `look` that it did not; it puts back what it cannot end."""
        self._ending = threading.Lock()
        """Held until a late request's connection is found: its thread cannot go on to the next request meanwhile."""
        self.missed = 0
        """How many bodies did not come in time."""

    def start(self) -> None:
        """Starts the thread that looks."""
        threading.Thread(target=self._watch, name="deadlines", daemon=True).start()

    def read(self, stream: Stream, size: int, environ: Environ, since: float) -> bytes:
        """Reads from the body of a request.

        Args:
            stream: the body.
            size: at most so many bytes.
            environ: of the request.
            since: when its body began to be read, on the clock of `time.monotonic`.

        Raises:
            RequestTimeout: the body did not come in time.
        """
        number = next(self._numbers)
        self._reading[number] = since, get_ident(), environ
        try:
            return stream.read(size)
        finally:
            if self._reading.pop(number, None) is None:
                with self._ending:
                    if self._reading.pop(number, None) is None:  # not put back
                        raise self._lateness()

    def guard(self, environ: Environ) -> None:
        """Lets whoever reads a request's `wsgi.input` read under its deadline."""
        environ["wsgi.input"] = _Body(self, environ)

    def look(self) -> None:
        """Ends the connections of clients that are late; what it cannot end the next look tries again."""
        late = monotonic() - self._seconds
        for number, (since, _, environ) in self._reading.copy().items():
            if since <= late:
                try:
                    self._take_out(number)
                except Exception:
                    logger.exception("late body not ended", extra={"path": environ["PATH_INFO"]})

    def _watch(self) -> None:
        while True:
            sleep(min(LOOK_SECONDS, self._seconds / 10))
            self.look()

    def _take_out(self, number: int) -> None:
        with self._ending:
            if (entry := self._reading.pop(number, None)) is None:
                return
            _, thread, environ = entry
            try:
                self._end(thread, environ)
            except BaseException:
                self._reading[number] = entry
                raise
        self.missed += 1
        logger.warning("body too late", extra={"path": environ["PATH_INFO"], "length": environ.get("CONTENT_LENGTH")})

    def _end(self, thread: int, environ: Environ) -> None:
        if (connection := environ.get("gunicorn.socket")) is not None:
            with suppress(OSError):  # the client has gone
                connection.shutdown(socket.SHUT_RD)
        elif (protocol := _find_protocol(thread)) is not None:
            _answer_and_end(protocol, self._lateness(), environ)
        else:
            raise LookupError("its connection was not found")

    def _lateness(self) -> RequestTimeout:
        told = f"the body did not come whole within {self._seconds:g} s; send it again"
        return RequestTimeout(told, error_response(408, "request_timeout", told))


class _Body(io.RawIOBase):
    """A request's body, all of whose reads share one deadline: it begins with the first."""

    def __init__(self, deadlines: Deadlines, environ: Environ) -> None:
        self._deadlines, self._environ, self._stream = deadlines, environ, environ["wsgi.input"]
        self._since: float | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._since is None:
            self._since = monotonic()
        data = self._deadlines.read(self._stream, len(buffer), self._environ, self._since)
        buffer[: len(data)] = data
        return len(data)


def _find_protocol(thread: int) -> Any:
    """Granian's `WSGIProtocol` of the request that a thread answers; the app is not told it."""
    frame = sys._current_frames().get(thread)
    while frame is not None and frame.f_globals.get("__name__") != "granian.wsgi":
        frame = frame.f_back
    return frame and frame.f_locals.get("proto")


def _answer_and_end(protocol: Any, error: RequestTimeout, environ: Environ) -> None:
    answer = error.get_response()
    body = answer.get_data()
    answer.headers["Content-Length"] = str(len(body) + 1)
    answer.headers["Connection"] = "close"
    answer.headers["X-Request-Id"] = environ["HTTP_X_REQUEST_ID"]

    def parts() -> Iterator[bytes]:
        yield body
        sleep(FAREWELL_SECONDS)

    told = answer.status_code, list(answer.headers), parts()
    threading.Thread(target=protocol.response_iter, args=told, name="farewell", daemon=True).start()
