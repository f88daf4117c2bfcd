"""MLflow's client against a server that is sent ID tokens, and a metadata server that gives them, both of our own."""

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

CLIENT = """
import sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1], sys.argv[1])
for _ in range(3):
    assert client.search_experiments() == []
"""


def make_token(audience: str) -> str:
    """What the metadata server makes, but for the signature."""
    claims = {"aud": audience, "exp": int(time.time()) + 3600}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims)]
    return ".".join([*parts, "c2lnbmVk"])


class Machine:
    """Metadata server and MLflow in one: remembers what it was asked for and with which token."""

    def __init__(self) -> None:
        self.audiences: list[str] = []
        self.authorizations: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def do_POST(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                """Keeps quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        if parts.path.endswith("/identity"):
            self.audiences += parse_qs(parts.query)["audience"]
            self.send(request, make_token(self.audiences[-1]), "application/text")
        elif parts.path.startswith("/computeMetadata") or parts.path == "/":
            self.send(request, json.dumps({"email": "trainer@project.iam.gserviceaccount.com"}), "application/json")
        else:
            request.rfile.read(int(request.headers.get("Content-Length") or 0))
            self.authorizations.append(request.headers.get("Authorization"))
            self.send(request, "{}", "application/json")

    def send(self, request: BaseHTTPRequestHandler, text: str, kind: str) -> None:
        request.send_response(200)
        request.send_header("Metadata-Flavor", "Google")
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text.encode())


@pytest.fixture
def machine(socket_enabled: None) -> Iterator[Machine]:
    made = Machine()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def call(machine: Machine, **environ: str) -> subprocess.CompletedProcess[str]:
    """MLflow's client in a process of its own, which reads the environment that it is given."""
    metadata = {"GCE_METADATA_HOST": machine.address, "GCE_METADATA_IP": machine.address, "NO_GCE_CHECK": "false"}
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", CLIENT, f"http://{machine.address}"],
        env={**kept, **metadata, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_mlflows_client_sends_one_token_that_names_the_server(machine: Machine) -> None:
    done = call(machine, MLFLOW_TRACKING_AUTH="google-id-token")
    assert done.returncode == 0, done.stderr
    assert set(machine.audiences) == {f"http://{machine.address}"}
    assert len(machine.audiences) == 1
    assert [text.split()[0] for text in machine.authorizations if text] == ["Bearer"] * 3
    payload = str(machine.authorizations[0]).split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(f"{payload}=="))["aud"] == f"http://{machine.address}"


def test_mlflows_client_sends_none_unless_it_is_told_to(machine: Machine) -> None:
    assert call(machine).returncode == 0
    assert machine.audiences == []
    assert set(machine.authorizations) == {None}


def test_who_has_no_account_is_told_so(machine: Machine) -> None:
    nowhere = {"GCE_METADATA_HOST": "127.0.0.1:1", "GCE_METADATA_IP": "127.0.0.1:1", "GCE_METADATA_TIMEOUT": "1"}
    done = call(machine, MLFLOW_TRACKING_AUTH="google-id-token", **nowhere)
    assert done.returncode != 0
    assert f"no ID token for http://{machine.address}" in done.stderr
