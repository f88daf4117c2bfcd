"""Logging in to Cloud SQL: Google's own client library and libpq, against a token endpoint and a socket that listen."""

import json
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.auth import jwt
from sqlalchemy import Engine, make_url

from esteira.cloud_sql import LOGIN_SCOPE, needs_token
from esteira.database import make_engine
from esteira.exceptions import Unavailable

INSTANCE = "acme:europe-west1:esteira"
USER = "esteira-etl@acme.iam"


class TokenEndpoint(HTTPServer):
    """Gives the tokens 1, 2, 3 …, each good for `lifetime` seconds, and keeps what they were asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _GiveToken)
        self.lifetime = 3600
        self.down = False
        self.scopes: list[str] = []


class _GiveToken(BaseHTTPRequestHandler):
    server: TokenEndpoint

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if self.server.down:
            return self._answer(400, {"error": "invalid_grant"})
        self.server.scopes.append(str(jwt.decode(form["assertion"][0], verify=False)["scope"]))
        token = {"access_token": f"token-{len(self.server.scopes)}", "expires_in": self.server.lifetime}
        return self._answer(200, token)

    def _answer(self, status: int, body: dict[str, object]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Doorkeeper:
    """Listens as Postgres does at a Cloud SQL socket: asks each client for its password, and lets nobody in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / INSTANCE
        self.folder.mkdir()
        self.logins: list[tuple[str, str]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / ".s.PGSQL.5432"))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as stream:
                self._ask(client, stream)

    def _ask(self, client: socket.socket, stream: BinaryIO) -> None:
        (length,) = struct.unpack("!i", stream.read(4))
        pairs = stream.read(length - 4)[4:].split(b"\0")
        client.sendall(b"R" + struct.pack("!ii", 8, 3))  # AuthenticationCleartextPassword
        assert stream.read(1) == b"p"
        (length,) = struct.unpack("!i", stream.read(4))
        password = stream.read(length - 4).rstrip(b"\0").decode()
        self.logins.append((dict(zip(pairs[::2], pairs[1::2], strict=False))[b"user"].decode(), password))
        refusal = b"SFATAL\0C28P01\0Mnobody comes in here\0\0"
        client.sendall(b"E" + struct.pack("!i", len(refusal) + 4) + refusal)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[TokenEndpoint]:
    """The token endpoint of the account that the environment names."""
    server = TokenEndpoint()
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    account = {
        "type": "service_account",
        "client_email": f"{USER}.gserviceaccount.com",
        "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "token_uri": f"http://127.0.0.1:{server.server_port}/token",
    }
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "acme")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def doorkeeper() -> Iterator[Doorkeeper]:
    folder = Path(tempfile.mkdtemp(prefix="sql"))  # the path of a socket is short
    keeper = Doorkeeper(folder)
    yield keeper
    keeper.close()
    shutil.rmtree(folder)


@pytest.fixture
def engine(doorkeeper: Doorkeeper) -> Iterator[Engine]:
    user = USER.replace("@", "%40")
    engine = make_engine(f"postgresql+psycopg://{user}@/esteira?host={doorkeeper.folder}")
    yield engine
    engine.dispose()


def knock(engine: Engine) -> None:
    with pytest.raises(Unavailable, match="nobody comes in here"), engine.connect():
        pass


def test_the_password_is_a_token_that_is_good_for_logging_in_only(
    engine: Engine, endpoint: TokenEndpoint, doorkeeper: Doorkeeper
) -> None:
    knock(engine)
    assert doorkeeper.logins == [(USER, "token-1")]
    assert endpoint.scopes == [LOGIN_SCOPE]


def test_a_token_is_used_until_it_is_about_to_expire(
    engine: Engine, endpoint: TokenEndpoint, doorkeeper: Doorkeeper
) -> None:
    knock(engine)
    knock(engine)
    assert [password for _, password in doorkeeper.logins] == ["token-1", "token-1"]


def test_a_token_about_to_expire_is_replaced(engine: Engine, endpoint: TokenEndpoint, doorkeeper: Doorkeeper) -> None:
    endpoint.lifetime = 60
    knock(engine)
    knock(engine)
    assert [password for _, password in doorkeeper.logins] == ["token-1", "token-2"]


def test_no_token_is_unavailable(engine: Engine, endpoint: TokenEndpoint, doorkeeper: Doorkeeper) -> None:
    endpoint.down = True
    with pytest.raises(Unavailable, match="no access token to log in to Cloud SQL with"), engine.connect():
        pass
    assert doorkeeper.logins == []
    endpoint.down = False
    knock(engine)
    assert doorkeeper.logins == [(USER, "token-1")]


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg://u:secret@/d?host=/cloudsql/{INSTANCE}",
        "postgresql+psycopg://u@/d?host=/var/run/postgresql",
        "postgresql+psycopg://u@127.0.0.1:5432/d",
        "postgresql+psycopg://u:secret@postgres/d",
    ],
)
def test_everybody_else_logs_in_as_the_url_says(url: str) -> None:
    assert not needs_token(make_url(url))


@pytest.mark.parametrize("instance", [INSTANCE, "example.com:acme:europe-west1:esteira"])
def test_a_cloud_sql_socket_without_a_password_needs_a_token(instance: str) -> None:
    assert needs_token(make_url(f"postgresql+psycopg://u@/d?host=/cloudsql/{instance}"))
