"""A load generator: connections that are kept open, each with one request under way, in one process without threads.

python tests/bench/load.py http://127.0.0.1:8080/pipelines/flights/predict body.json --connections 16 --seconds 5
"""

import argparse
import json
import select
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of the load generator saw."""

    requests: int
    seconds: float
    failures: int
    """Answers of another status than 200, and connections that broke."""
    latencies_ms: list[float]
    """Sorted."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    def percentile(self, share: float) -> float:
        """Milliseconds that this share of requests took at most."""
        return self.latencies_ms[min(len(self.latencies_ms) - 1, int(share * len(self.latencies_ms)))]


class Connection:
    """One client: sends a request, and the next one when the answer is whole.

    Attributes:
        head: status and headers of the last answer, in lower case.
    """

    def __init__(self, host: str, port: int, request: bytes) -> None:
        self._request = request
        self._buffer = b""
        self._needed = 0
        self.head = b""
        self.sent_at = 0.0
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self) -> None:
        """Sends the request."""
        self.sent_at = time.perf_counter()
        self.socket.sendall(self._request)

    def receive(self) -> bool | None:
        """Takes what has come; whether the answer is a good one, or None while it is not whole.

        Raises:
            ConnectionError: the server closed the connection.
        """
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("closed by the server")
        self._buffer = self._buffer + data if self._buffer else data
        if not self._needed:
            end = self._buffer.find(_HEAD_END)
            if end < 0:
                return None
            self.head = self._buffer[:end].lower()
            at = self.head.index(_LENGTH) + len(_LENGTH)
            self._needed = end + len(_HEAD_END) + int(self.head[at:].split(b"\r\n", 1)[0])
        if len(self._buffer) < self._needed:
            return None
        good = self._buffer[9:12] == b"200"
        self._buffer, self._needed = b"", 0
        return good


def make_request(url: str, body: bytes, content_type: str = "application/json") -> tuple[str, int, bytes]:
    """Host, port and the bytes of a POST."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: {content_type}\r\n"
    return host, port, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def connect(url: str, body: bytes, connections: int, content_type: str = "application/json") -> list[Connection]:
    """Opens connections that all send the same."""
    host, port, request = make_request(url, body, content_type)
    return [Connection(host, port, request) for _ in range(connections)]


def load(
    url: str, body: bytes, connections: int = 16, seconds: float = 5.0, content_type: str = "application/json"
) -> Measured:
    """Asks as fast as answers come, for so many seconds."""
    clients = {client.socket.fileno(): client for client in connect(url, body, connections, content_type)}
    poll = select.epoll()
    for number, client in clients.items():
        poll.register(number, select.EPOLLIN)
        client.send()
    latencies: list[float] = []
    failures = 0
    begun = time.perf_counter()
    end = begun + seconds
    while clients and (now := time.perf_counter()) < end:
        for number, _ in poll.poll(max(0.0, end - now)):
            client = clients[number]
            try:
                good = client.receive()
                if good is None:
                    continue
                latencies.append(time.perf_counter() - client.sent_at)
                failures += not good
                client.send()
            except OSError:
                failures += 1
                poll.unregister(number)
                clients.pop(number).socket.close()
    took = time.perf_counter() - begun
    for client in clients.values():
        client.socket.close()
    poll.close()
    in_ms = sorted(1000 * latency for latency in latencies)
    return Measured(requests=len(latencies), seconds=took, failures=failures, latencies_ms=in_ms or [float("nan")])


def main() -> None:
    """Prints rate and percentiles as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("body", type=Path)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--content-type", default="application/json")
    given = parser.parse_args()
    found = load(given.url, given.body.read_bytes(), given.connections, given.seconds, given.content_type)
    shown = {"rate": found.rate, "failures": found.failures, "requests": found.requests}
    percentiles = {f"p{share * 100:g}_ms": round(found.percentile(share), 3) for share in (0.5, 0.99, 0.999)}
    print(json.dumps({**shown, **percentiles}))


if __name__ == "__main__":
    main()
