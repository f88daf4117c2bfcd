"""HTTP to one push endpoint: kept-alive connections, no redirects, one deadline per request."""

import http.client
import select
import ssl
import threading
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

IDLE_LIMIT_S = 1.0
"""A connection that was idle for longer is not used again: its server may just be closing it."""


class PushClient:
    """Posts to one URL from several threads."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._lock = threading.Lock()
        self._idle: list[tuple[float, http.client.HTTPConnection]] = []

    def post(self, body: bytes, headers: Mapping[str, str], timeout_s: float) -> int:
        """Posts `body` and returns the status.

        Raises:
            OSError: no connection, or no answer within `timeout_s`.
            http.client.HTTPException: the answer is not HTTP.
        """
        end = time.monotonic() + timeout_s
        connection = self._connection(timeout_s)
        try:
            connection.request("POST", self._path, body=body, headers=dict(headers))
            response = connection.getresponse()
            response.read()
        except BaseException:
            connection.close()
            raise
        self._keep(connection, reusable=response.status >= 200 and not response.will_close)
        if time.monotonic() > end:
            raise TimeoutError(f"the answer came after the deadline of {timeout_s} s")
        return response.status

    def close(self) -> None:
        """Closes the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        while True:
            with self._lock:
                since, connection = self._idle.pop() if self._idle else (0.0, None)
            if connection is None:
                return self._connect(timeout_s)
            if time.monotonic() - since < IDLE_LIMIT_S and not _closed_by_peer(connection):
                connection.sock.settimeout(timeout_s)
                return connection
            connection.close()

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)

    def _keep(self, connection: http.client.HTTPConnection, reusable: bool) -> None:
        if not reusable or connection.sock is None:
            connection.close()
            return
        with self._lock:
            self._idle.append((time.monotonic(), connection))


def _closed_by_peer(connection: http.client.HTTPConnection) -> bool:
    """A connection at rest has nothing to read; readable means that its end has come."""
    readable, _, _ = select.select([connection.sock], [], [], 0)
    return bool(readable)
