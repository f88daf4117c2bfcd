"""The emulator's HTTP side: health, status, faults, and the keys that verify its tokens."""

import json
import logging
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from esteira_cli.pubsub.database import Database
from esteira_cli.pubsub.exceptions import InvalidArgument
from esteira_cli.pubsub.faults import FaultSwitch, parse_faults
from esteira_cli.pubsub.status import status
from esteira_cli.pubsub.tokens import SigningKey

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 65_536


class AdminServer:
    """Serves on a thread of its own from `start` to `stop`."""

    def __init__(self, host: str, port: int, database: Database, faults: FaultSwitch, key: SigningKey) -> None:
        certificates = key.certificates()
        pages: dict[str, Callable[[], object]] = {
            "/health/live": lambda: {"status": "ok"},
            "/health/ready": lambda: {"status": "ok"},
            "/status": lambda: status(database),
            "/faults": lambda: faults.faults.to_json(),
            "/oauth2/v1/certs": lambda: certificates,
            "/oauth2/v3/certs": key.jwks,
        }
        self._server = _Server((host, port), pages, faults)
        self._thread = threading.Thread(target=self._server.serve_forever, name="admin", daemon=True)

    @property
    def port(self) -> int:
        """The port that is bound."""
        return self._server.server_port

    def start(self) -> None:
        """Starts to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stops serving and closes the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], pages: dict[str, Callable[[], object]], faults: FaultSwitch) -> None:
        self.pages = pages
        self.faults = faults
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            self._answer(HTTPStatus.NOT_FOUND, _error(f"no page {self.path}; there are {sorted(self.server.pages)}"))
        else:
            self._answer(HTTPStatus.OK, page())

    def do_PUT(self) -> None:
        body = self._body()
        if self.path != "/faults" or body is None:
            self.close_connection = True
            self._answer(HTTPStatus.NOT_FOUND, _error("PUT is for /faults, with a JSON body of at most 64 KiB"))
            return
        try:
            faults = parse_faults(json.loads(body))
        except (InvalidArgument, ValueError, RecursionError) as error:
            self._answer(HTTPStatus.BAD_REQUEST, _error(str(error)))
            return
        self.server.faults.set(faults)
        logger.info("Faults changed", extra={"faults": faults.to_json()})
        self._answer(HTTPStatus.OK, faults.to_json())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        logger.debug("Admin request", extra={"request": format % args})

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return None
        return self.rfile.read(int(length))

    def _answer(self, code: HTTPStatus, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if code is HTTPStatus.OK and self.path.startswith("/oauth2/"):
            self.send_header("Cache-Control", "public, max-age=3600")
        self.end_headers()
        self.wfile.write(body)


def _error(message: str) -> dict[str, dict[str, str]]:
    return {"error": {"message": message}}
