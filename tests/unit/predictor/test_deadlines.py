"""A body that does not come in time is refused, whatever server waits for it."""

import io
import json
import socket
import threading
from collections.abc import Callable, Iterable
from time import monotonic, sleep
from typing import Any

import pytest
from granian.wsgi import _callback_wrapper
from werkzeug.exceptions import RequestTimeout
from werkzeug.wsgi import get_input_stream

from predictor.deadlines import Deadlines

FAR = 60.0


class Body:
    """Comes when it is let come."""

    def __init__(self, data: bytes = b"") -> None:
        self.asked, self.comes, self.data = threading.Event(), threading.Event(), data

    def read(self, _: int) -> bytes:
        """Waits."""
        self.asked.set()
        assert self.comes.wait(10)
        return self.data


class GranianProtocol:
    """Takes one answer; a connection that is answered too little ends, and its body with it."""

    def __init__(self, body: Body) -> None:
        self._body, self.answers = body, list[tuple[int, dict[str, str], bytes]]()

    def response_iter(self, status: int, headers: list[tuple[str, str]], parts: Iterable[bytes]) -> None:
        """The answer of whoever comes first."""
        told = status, dict(headers), b"".join(parts)
        self.answers.append(told)
        if int(told[1]["Content-Length"]) > len(told[2]):
            self._body.comes.set()

    def response_bytes(self, *_: Any) -> None:
        """The answer of the thread, which comes too late."""


class Connection:
    """Gunicorn's, whose reading side can be shut; its body comes all the same."""

    def shutdown(self, _: int) -> None:
        """Does nothing."""


def environ(stream: Any, **more: Any) -> dict[str, Any]:
    return {"PATH_INFO": "/here", "HTTP_X_REQUEST_ID": "r-1", "wsgi.input": stream, **more}


def read(deadlines: Deadlines, asked: dict[str, Any], age: float = 0.0) -> bytes:
    return deadlines.read(asked["wsgi.input"], 9, asked, monotonic() - age)


def in_thread(work: Callable[[], object]) -> list[object]:
    """What it gave or raised, once `join` is called on the thread that comes last."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(work())
        except RequestTimeout as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    found.append(thread)
    return found


def result(found: list[object]) -> object:
    thread = next(entry for entry in found if isinstance(entry, threading.Thread))
    thread.join(10)
    return next(entry for entry in found if entry is not thread)


def look_until(deadlines: Deadlines, check: Callable[[], bool]) -> None:
    end = monotonic() + 20
    while not check():
        deadlines.look()
        assert monotonic() < end


def test_what_comes_in_time_is_read() -> None:
    deadlines, body = Deadlines(FAR), Body(b"all of it")
    found = in_thread(lambda: read(deadlines, environ(body)))
    assert body.asked.wait(10)
    deadlines.look()
    body.comes.set()
    assert (result(found), deadlines.missed) == (b"all of it", 0)


def test_gunicorns_socket_is_shut_for_reading_and_still_takes_the_answer() -> None:
    deadlines = Deadlines(FAR)
    client, server = socket.socketpair()
    with client, server, server.makefile("rb") as stream:
        found = in_thread(lambda: read(deadlines, environ(stream, **{"gunicorn.socket": server}), age=FAR))
        look_until(deadlines, lambda: deadlines.missed > 0)
        error = result(found)
        server.sendall(b"408")
        assert client.recv(3) == b"408"
    assert isinstance(error, RequestTimeout)
    assert "within 60 s" in str(error.description)


def test_granian_answers_with_a_byte_too_few_and_so_ends_the_connection() -> None:
    deadlines, body = Deadlines(FAR), Body()
    protocol = GranianProtocol(body)
    refused: list[RequestTimeout] = []

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        try:
            read(deadlines, environ, age=FAR)
        except RequestTimeout as error:
            refused.append(error)
        start("408 Request Timeout", [])
        return []

    found = in_thread(lambda: _callback_wrapper(app, {})(protocol, environ(body)))
    assert body.asked.wait(10)
    deadlines.look()
    assert (result(found), len(refused), deadlines.missed) == (408, 1, 1)
    [(status, headers, answer)] = protocol.answers
    assert (status, headers["X-Request-Id"], headers["Connection"]) == (408, "r-1", "close")
    assert json.loads(answer)["error"]["code"] == "request_timeout"
    assert int(headers["Content-Length"]) == len(answer) + 1


def test_a_connection_that_is_not_found_is_looked_for_again_and_its_body_read_when_it_comes_at_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    deadlines, body = Deadlines(FAR), Body(b"all of it")
    found = in_thread(lambda: read(deadlines, environ(body), age=FAR))
    assert body.asked.wait(10)
    deadlines.look()
    deadlines.look()
    body.comes.set()
    assert (result(found), deadlines.missed, deadlines._reading) == (b"all of it", 0, {})
    assert caplog.text.count("LookupError: its connection was not found") == 2


def test_a_connection_that_cannot_be_ended_keeps_no_other_from_its_end_and_is_ended_later() -> None:
    deadlines, body = Deadlines(FAR), Body()
    client, server = socket.socketpair()

    class Stubborn(Connection):
        ends = False

        def shutdown(self, _: int) -> None:
            if not self.ends:
                raise RuntimeError("not now")
            body.comes.set()

    stubborn = Stubborn()
    with server, server.makefile("rb") as stream, client:
        first = in_thread(lambda: read(deadlines, environ(body, **{"gunicorn.socket": stubborn}), age=FAR))
        assert body.asked.wait(10)
        second = in_thread(lambda: read(deadlines, environ(stream, **{"gunicorn.socket": server}), age=FAR))
        look_until(deadlines, lambda: deadlines.missed == 1)
        assert isinstance(result(second), RequestTimeout)
        stubborn.ends = True
        deadlines.look()
        assert isinstance(result(first), RequestTimeout)
    assert (deadlines.missed, deadlines._reading) == (2, {})


def test_all_reads_of_a_body_share_one_deadline() -> None:
    deadlines = Deadlines(0.2)

    class Dripping(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            sleep(0.01)
            deadlines.look()
            return super().read(min(size or 0, 1))

    asked = environ(Dripping(bytes(1000)), CONTENT_LENGTH="1000", **{"gunicorn.socket": Connection()})
    deadlines.guard(asked)
    with pytest.raises(RequestTimeout):
        get_input_stream(asked).read()


def test_a_guarded_body_is_the_body() -> None:
    asked = environ(io.BytesIO(b"one\ntwo\n" * 50_000), CONTENT_LENGTH="400000")
    Deadlines(FAR).guard(asked)
    assert get_input_stream(asked).read() == b"one\ntwo\n" * 50_000


def test_of_many_that_come_late_or_not_each_is_refused_or_read_once() -> None:
    deadlines = Deadlines(0.002)

    class Quick:
        def read(self, _: int) -> bytes:
            sleep(0.002)
            return b"read"

    def work() -> int:
        refused = 0
        for _ in range(50):
            try:
                assert read(deadlines, environ(Quick(), **{"gunicorn.socket": Connection()})) == b"read"
            except RequestTimeout:
                refused += 1
        return refused

    found = [in_thread(work) for _ in range(4)]
    look_until(deadlines, lambda: all(len(each) == 2 for each in found))
    assert sum(int(str(result(each))) for each in found) == deadlines.missed
    assert deadlines.missed > 0
    assert not deadlines._reading
