"""Who asks a predictor behind https, and with which token."""

import json
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from esteira.exceptions import SettingsInvalid, Unauthenticated
from esteira_cli.client import AccessRefused
from esteira_cli.predict import address
from esteira_cli.predict.address import _RenewedToken, connect, find_url, token_helps

URL = "https://predictor.example"


class Tokens(BaseHTTPRequestHandler):
    """Makes ID tokens as Google does for a service account's key; nobody checks them."""

    asked: list[str]

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        claims = form["assertion"][0].split(".")[1]
        self.asked.append(json.loads(urlsafe_b64decode(f"{claims}=="))["target_audience"])
        token = ".".join(_part(part) for part in ({"alg": "none"}, {"exp": 4_000_000_000, "n": len(self.asked)}, {}))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"id_token": token}).encode())

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def _part(value: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def number_of(token: str) -> int:
    return int(json.loads(urlsafe_b64decode(f"{token.split('.')[1]}=="))["n"])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    handler = type("Handler", (Tokens,), {"asked": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"type": "service_account", "client_email": "me@example.com", "private_key": key.decode()}
    account["token_uri"] = f"http://127.0.0.1:{server.server_port}/token"
    (tmp_path / "key.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    monkeypatch.delenv("ESTEIRA_SERVICE_ACCOUNT", raising=False)
    yield handler.asked  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_token_is_used_until_it_is_old(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    token = _RenewedToken(URL, AccessRefused("answered 403"))
    assert [number_of(token()), number_of(token())] == [1, 1]
    assert asked == [URL]
    monkeypatch.setattr(address, "TOKEN_S", 0)
    assert number_of(token()) == 2


def test_without_credentials_it_says_what_was_refused_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    monkeypatch.delenv("ESTEIRA_SERVICE_ACCOUNT", raising=False)
    with pytest.raises(Unauthenticated, match="answered 403; set ESTEIRA_API_KEY to a key, or: no ID token for"):
        _RenewedToken(URL, AccessRefused("answered 403"))()


@pytest.mark.parametrize(
    ("url", "api_key", "code", "helps"),
    [
        (URL, None, "unauthenticated", True),
        (URL, None, "", True),
        (URL, "key", "", True),  # Cloud Run's IAM answers with a page, not with an error of ours
        (URL, "key", "unauthenticated", False),
        ("http://predictor.example", None, "", False),
        ("http://predictor.example", "key", "", False),
    ],
)
def test_a_token_is_shown_where_it_can_help_and_nobody_listens(
    url: str, api_key: str | None, code: str, helps: bool
) -> None:
    assert token_helps(url, api_key, AccessRefused("answered 403", code=code)) is helps


def test_an_address_that_is_given_is_taken(tmp_path: Path) -> None:
    assert find_url(URL, tmp_path) == URL


def test_no_address_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="is no address"):
        connect("predictor.example", "shop", None, 1)
