"""Clients that send slowly, to each of the servers."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from google.cloud.pubsub_v1 import PublisherClient

from esteira.bucket import Bucket
from esteira_cli.stack import Stack
from esteira_cli.stack.bucket import create as create_bucket
from predictor.server import SERVERS
from predictor_processes import WORKERS, Server, environment, wait_until
from releases import build_release, raw_rows

SECONDS = 1.0
THREADS = 2
PREDICT = "/pipelines/shop/predict"


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, infrastructure: Stack, bucket_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder, name = tmp_path_factory.mktemp(request.param), f"slow-{request.param}"
    create_bucket(bucket_server, name, name)
    with PublisherClient() as publisher:
        publisher.create_topic(name=f"projects/{name}/topics/predictions-served")
    built, bucket = build_release(folder / "release"), Bucket(name, name)
    built.upload(bucket)
    built.promote(bucket)
    told = {"SERVER": request.param, "BODY_SECONDS": str(SECONDS), "THREADS": str(THREADS)}
    server = Server(environment(name, name, folder) | told, folder / "log")
    wait_until(server.is_ready)
    yield server
    server.stop()


@contextmanager
def connected(server: Server) -> Iterator[Callable[[], int]]:
    """Asks on one connection, which is open meanwhile, and gives the status."""
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=10)

    def ask() -> int:
        connection.request("GET", "/health/live")
        with connection.getresponse() as answer:
            answer.read()
            return answer.status

    ask()
    opened = connection.sock
    yield ask
    assert connection.sock is opened
    connection.close()


class SlowClient:
    """Sends a body byte by byte, until it is answered and its connection ends, or it has sent all."""

    def __init__(self, server: Server, path: str, head: str, body: bytes, every: float = 0.1) -> None:
        place = urlsplit(server.url)
        self._connection = socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=every)
        self._connection.sendall(f"POST {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: r-1\r\n{head}\r\n\r\n".encode())
        self._begun, self._body, self._answer = time.monotonic(), body, b""
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._drip)
        self._thread.start()

    def _drip(self) -> None:
        rest = iter(self._body)
        with self._connection, suppress(ConnectionError):
            while time.monotonic() < self._begun + 20 * SECONDS:
                with suppress(TimeoutError):
                    part = self._connection.recv(1 << 16)
                    self.seconds = self.seconds or time.monotonic() - self._begun
                    self._answer += part
                    if not part:
                        break
                if (byte := next(rest, None)) is not None and not self._answer:
                    self._connection.sendall(bytes([byte]))

    def answer(self) -> tuple[int, str, bytes]:
        """Its status, head and body."""
        self._thread.join()
        head, _, body = self._answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), head.decode().lower(), body


JSON = "Content-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("path", "head"),
    [
        (PREDICT, JSON + "Content-Length: 4000"),
        (PREDICT, JSON + "Transfer-Encoding: chunked"),
        ("/pipelines/shop/feedback", JSON + "Content-Length: 4000"),
        ("/events/model-promoted", JSON + "Content-Length: 4000"),
        ("/v2/models/shop/infer", JSON + "Content-Length: 4000"),
    ],
)
def test_a_body_that_does_not_come_in_time_is_answered_408(server: Server, path: str, head: str) -> None:
    with connected(server) as ask_on_another:
        client = SlowClient(server, path, head, b"fa0\r\n" * 500)
        status, told, body = client.answer()
        assert (status, SECONDS <= client.seconds < 5 * SECONDS) == (408, True)
        assert "x-request-id: r-1" in told
        assert "within 1 s" in str(json.loads(body)["error"])
        assert ask_on_another() == 200  # from the same address
    assert "body too late" in server.log.read_text()


def test_clients_that_held_every_thread_hold_none_after_it(server: Server) -> None:
    head = JSON + "Content-Length: 4000"
    slow = [SlowClient(server, "/events/model-promoted", head, b" " * 4000) for _ in range(2 * WORKERS * THREADS)]
    for client in slow:
        assert client.answer()[0] == 408
    for _ in range(4 * WORKERS * THREADS):
        server.predict()


def test_a_slow_body_that_comes_in_time_is_answered(server: Server) -> None:
    body = json.dumps({"rows": raw_rows(1)}).encode()
    client = SlowClient(server, PREDICT, JSON + f"Content-Length: {len(body)}\r\nConnection: close", body, 0.0001)
    assert client.answer()[0] == 200
