import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import crypt, jwt

from esteira.exceptions import BadInput, SettingsInvalid, Unauthenticated, Unavailable
from esteira.pushes import REFETCH_SECONDS, SIGNATURE_REMOVED, PushVerifier, parse_push

AUDIENCE = "https://etl.example"
ACCOUNT = "push@project.iam.gserviceaccount.com"


def make_key() -> tuple[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


PRIVATE, PUBLIC = make_key()
OTHER_PRIVATE, OTHER_PUBLIC = make_key()


class CertificateServer:
    """Serves certificates as Google does, on this machine."""

    def __init__(self) -> None:
        self.known = {"one": PUBLIC}
        self.status = 200
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                body = json.dumps(outer.known).encode()
                self.send_response(outer.status)
                self.send_header("Cache-Control", "public, max-age=1000")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keeps quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/certs"


@pytest.fixture
def certificates(socket_enabled: None) -> Iterator[CertificateServer]:
    served = CertificateServer()
    thread = threading.Thread(target=served.server.serve_forever, daemon=True)
    thread.start()
    yield served
    served.server.shutdown()
    served.server.server_close()
    thread.join()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def token(private: str = PRIVATE, kid: str = "one", **changes: object) -> str:
    now = int(time.time())
    claims = {
        "iss": "https://accounts.google.com",
        "aud": AUDIENCE,
        "email": ACCOUNT,
        "email_verified": True,
        "iat": now,
        "exp": now + 3600,
    }
    signer = crypt.RSASigner.from_string(private, kid)
    kept = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return jwt.encode(signer, kept).decode()


def test_accepts_the_token_of_the_service_account(certificates):
    verifier = PushVerifier(AUDIENCE, ACCOUNT, certificates.url)
    verifier.verify(f"Bearer {token()}")
    verifier.verify(f"bearer {token(exp=int(time.time()) - 5)}")
    assert certificates.asked == 1


WRONG_CLAIMS = [
    {"aud": "https://other.example"},
    {"aud": None},
    {"email": "else@project.iam.gserviceaccount.com"},
    {"email": None},
    {"email_verified": False},
    {"email_verified": "true"},
    {"email_verified": None},
    {"iss": "https://evil.example"},
    {"iss": None},
    {"exp": int(time.time()) - 60},
    {"exp": None},
    {"exp": "never"},
    {"iat": int(time.time()) + 86_400, "exp": int(time.time()) + 90_000},
]


def stripped(**changes: object) -> str:
    """A token as a container on Cloud Run gets it."""
    return f"{token(**changes).rpartition('.')[0]}.{SIGNATURE_REMOVED}"


def test_a_token_that_cloud_run_has_checked_is_held_against_the_same_claims():
    verifier = PushVerifier(AUDIENCE, ACCOUNT, behind_iam=True)
    assert verifier.verify(f"Bearer {stripped()}") == ACCOUNT
    for changes in WRONG_CLAIMS:
        with pytest.raises(Unauthenticated):
            verifier.verify(f"Bearer {stripped(**changes)}")


def test_a_token_without_signature_is_refused_where_nobody_checked_it():
    with pytest.raises(Unauthenticated, match="PUSH_AUTHENTICATION=iam"):
        PushVerifier(AUDIENCE, ACCOUNT).verify(f"Bearer {stripped()}")


def test_a_token_without_signature_is_refused_where_iam_looked_at_another():
    with pytest.raises(Unauthenticated, match="X-Serverless-Authorization"):
        PushVerifier(AUDIENCE, ACCOUNT, behind_iam=True).verify(f"Bearer {stripped()}", (), "Bearer of.someone.else")


def test_behind_iam_a_signed_token_is_still_verified(certificates):
    verifier = PushVerifier(AUDIENCE, ACCOUNT, certificates.url, behind_iam=True)
    assert verifier.verify(f"Bearer {token()}") == ACCOUNT
    with pytest.raises(Unauthenticated):
        verifier.verify(f"Bearer {token(private=OTHER_PRIVATE)}")


@pytest.mark.parametrize("text", ["", "a", "a.b", "a.b.c.d", "e30.e30"])
def test_rubbish_without_signature_is_refused(text):
    with pytest.raises(Unauthenticated):
        PushVerifier(AUDIENCE, ACCOUNT, behind_iam=True).verify(f"Bearer {text}.{SIGNATURE_REMOVED}")


@pytest.mark.parametrize(
    "changes",
    [
        *WRONG_CLAIMS,
        {"private": OTHER_PRIVATE},
        {"kid": "two"},
    ],
)
def test_refuses_a_token_that_is_wrong_in_one_thing(certificates, changes):
    with pytest.raises(Unauthenticated):
        PushVerifier(AUDIENCE, ACCOUNT, certificates.url).verify(f"Bearer {token(**changes)}")


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


UNSIGNED = f"{encoded({'alg': 'none', 'kid': 'one'})}.{encoded({'aud': AUDIENCE, 'email': ACCOUNT})}."
HASHED = f"{encoded({'alg': 'HS256', 'kid': 'one'})}.{encoded({'aud': AUDIENCE})}.{encoded('x')}"
NESTED = base64.urlsafe_b64encode(b"[" * 6000).decode()
NASTY = [
    None,
    "",
    "Bearer",
    "Bearer ",
    "Basic YTpi",
    "Bearer x",
    "Bearer a.b.c",
    "Bearer é.é.é",
    f"Bearer {UNSIGNED}",
    f"Bearer {HASHED}",
    f"Bearer {encoded([])}.{encoded(1)}.{encoded('x')}",
    f"Bearer {encoded({'alg': 'RS256', 'kid': ['one']})}.{encoded({})}.{encoded('x')}",
    f"Bearer {NESTED}.{NESTED}.x",
]


@pytest.mark.parametrize("header", NASTY, ids=range(len(NASTY)))
def test_refuses_what_is_no_token(certificates, header):
    with pytest.raises(Unauthenticated):
        PushVerifier(AUDIENCE, ACCOUNT, certificates.url).verify(header)


def test_learns_new_keys_but_asks_seldom(certificates):
    clock = Clock()
    verifier = PushVerifier(AUDIENCE, ACCOUNT, certificates.url, clock)
    verifier.verify(f"Bearer {token()}")
    certificates.known["two"] = OTHER_PUBLIC
    rotated = f"Bearer {token(OTHER_PRIVATE, 'two')}"
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            verifier.verify(rotated)
    assert certificates.asked == 1
    clock.now += REFETCH_SECONDS
    verifier.verify(rotated)
    assert certificates.asked == 2


def test_forgets_withdrawn_keys_when_their_time_is_up(certificates):
    clock = Clock()
    verifier = PushVerifier(AUDIENCE, ACCOUNT, certificates.url, clock)
    verifier.verify(f"Bearer {token()}")
    certificates.known = {"two": OTHER_PUBLIC}
    clock.now += 1000
    with pytest.raises(Unauthenticated):
        verifier.verify(f"Bearer {token()}")


def test_an_outage_of_the_certificates_is_no_verdict(certificates):
    clock = Clock()
    certificates.status = 500
    verifier = PushVerifier(AUDIENCE, ACCOUNT, certificates.url, clock)
    with pytest.raises(Unavailable):
        verifier.verify(f"Bearer {token()}")
    certificates.status = 200
    verifier.verify(f"Bearer {token()}")
    certificates.status = 500
    clock.now += 2000
    verifier.verify(f"Bearer {token()}")


@pytest.mark.parametrize("url", ["http://certs.example/x", "ftp://127.0.0.1/x", "http://127.0.0.1.evil.example/", "x"])
def test_certificates_come_by_https_or_from_this_machine(url):
    with pytest.raises(SettingsInvalid):
        PushVerifier(AUDIENCE, ACCOUNT, url)


@pytest.mark.parametrize("audience, account", [("", ACCOUNT), (AUDIENCE, "")])
def test_nothing_is_verified_against_nothing(audience, account):
    with pytest.raises(SettingsInvalid):
        PushVerifier(audience, account)


def envelope(**changes: object) -> bytes:
    message = {"data": base64.b64encode(b"{}").decode(), "attributes": {"ce-id": "1"}, "messageId": "m", **changes}
    return json.dumps({"message": message, "subscription": "s", "deliveryAttempt": 3, "later": {}}).encode()


def test_reads_an_envelope():
    delivery = parse_push(envelope())
    assert (delivery.event_id, delivery.data, delivery.attempt, delivery.subscription) == ("1", b"{}", 3, "s")


@pytest.mark.parametrize("spelling", ["messageId", "message_id"])
def test_the_message_id_stands_in_for_the_event_id(spelling):
    changes = {"messageId": None, "attributes": None, "data": None, spelling: "m7"}
    delivery = parse_push(envelope(**changes))
    assert (delivery.event_id, delivery.data, delivery.attributes) == ("m7", b"", {})


BROKEN = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"message": []}',
    b'{"message": {}}',
    b"[" * 100_000,
    b'{"x":' * 100_000,
    b'{"message": {"messageId": "1", "data": "%%"}}',
    b'{"message": {"messageId": "1", "data": "YQ"}}',
    '{"message": {"messageId": "1", "data": "é"}}'.encode(),
    b'{"message": {"messageId": 1}}',
    b'{"message": {"messageId": "1", "attributes": {"a": 1}}}',
    b'{"message": {"messageId": "\\u0000"}}',
    b'{"message": {"messageId": "' + b"x" * 600 + b'"}}',
    b'{"message": {"messageId": "\xff"}}',
]


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
def test_refuses_what_is_no_envelope(body):
    with pytest.raises(BadInput):
        parse_push(body)
