"""A push endpoint that records what comes and answers as told."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Push:
    """One push request as it arrived, with the time of its arrival."""

    headers: Mapping[str, str]
    body: dict[str, Any]
    at: float

    @property
    def message_id(self) -> str:
        message_id: str = self.body["message"]["messageId"]
        return message_id


Answer = Callable[[Push], int]


class Receiver:
    """Listens on a free port; `answer` chooses the status of each push."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self._lock = threading.Lock()
        self._pushes: list[Push] = []
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}/events/test"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def pushes(self) -> list[Push]:
        with self._lock:
            return list(self._pushes)

    def record(self, push: Push) -> None:
        with self._lock:
            self._pushes.append(push)

    def wait_for(self, count: int, timeout_s: float = 10.0) -> list[Push]:
        """Returns the pushes once there are `count`."""
        wait_until(lambda: len(self.pushes) >= count, f"{count} pushes", timeout_s)
        return self.pushes

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A killed emulator breaks connections: that is no fault of the receiver."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        push = Push(dict(self.headers.items()), body, time.monotonic())
        self.server.receiver.record(push)
        self.send_response(self.server.receiver.answer(push))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002
        return


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    """Polls until `condition` holds.

    Raises:
        AssertionError: it does not within `timeout_s`.
    """
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {timeout_s} s"
        time.sleep(0.01)
