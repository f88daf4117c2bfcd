"""The key that signs push tokens, kept in the state folder, and the two forms in which it is published."""

import base64
import datetime as dt
import hashlib
import json
import os
import secrets
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

ISSUER = "https://accounts.google.com"
LIFETIME_S = 3600
KEY_FILE = "signing-key.pem"
NO_KEY = "expected an RSA private key; delete the file to have a new one made"


class SigningKey:
    """An RSA key that signs OIDC tokens as accounts.google.com does."""

    def __init__(self, private: rsa.RSAPrivateKey) -> None:
        self._private = private
        self._public = private.public_key()
        self.key_id = hashlib.sha256(_public_der(self._public)).hexdigest()[:40]

    def sign(self, audience: str, email: str, issued_at: float | None = None) -> str:
        """Returns a JWT (RS256) that says `email` is calling `audience`, valid for an hour."""
        now = int(time.time() if issued_at is None else issued_at)
        header = {"alg": "RS256", "kid": self.key_id, "typ": "JWT"}
        subject = _subject(email)
        claims = {
            "iss": ISSUER,
            "aud": audience,
            "azp": subject,
            "sub": subject,
            "email": email,
            "email_verified": True,
            "iat": now,
            "exp": now + LIFETIME_S,
        }
        signed = f"{_base64url_json(header)}.{_base64url_json(claims)}"
        signature = self._private.sign(signed.encode("ascii"), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64url(signature)}"

    def jwks(self) -> dict[str, object]:
        """Returns the public key as a JSON Web Key Set (RFC 7517)."""
        numbers = self._public.public_numbers()
        key = {
            "kty": "RSA",
            "alg": "RS256",
            "use": "sig",
            "kid": self.key_id,
            "n": _base64url(_big_endian(numbers.n)),
            "e": _base64url(_big_endian(numbers.e)),
        }
        return {"keys": [key]}

    def certificates(self) -> dict[str, str]:
        """Returns the public key as `{key id: self-signed X.509 certificate in PEM}`."""
        certificate = _self_signed(self._private)
        return {self.key_id: certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")}


def load_signing_key(state_dir: Path) -> SigningKey:
    """Loads the key of `state_dir`, and makes it there (mode 0600) where it is missing.

    Several processes may call this at once; all end with the same key.

    Raises:
        ValueError: the file is there but holds no RSA private key.
    """
    path = state_dir / KEY_FILE
    if not path.exists():
        _create_key(path)
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {NO_KEY}") from error
    if not isinstance(private, rsa.RSAPrivateKey):
        raise ValueError(f"{path}: {NO_KEY}")  # noqa: TRY004 - the file is wrong, not an argument's type
    return SigningKey(private)


def sign_token(state_dir: Path, audience: str, email: str) -> str:
    """Signs a token with the key of `state_dir`, as the emulator does for its pushes."""
    return load_signing_key(state_dir).sign(audience, email)


def _create_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        _link_if_absent(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _link_if_absent(draft: Path, path: Path) -> None:
    """Gives the finished file its name in one step, unless another process was first."""
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return


def _self_signed(private: rsa.RSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "esteira-pubsub.local")])
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=3650))
        .sign(private, hashes.SHA256())
    )


def _public_der(public: rsa.RSAPublicKey) -> bytes:
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _subject(email: str) -> str:
    """Google's subjects are the 21-digit ids of service accounts."""
    digest = int.from_bytes(hashlib.sha256(email.encode()).digest())
    return str(10**20 + digest % (9 * 10**20))


def _big_endian(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _base64url_json(value: dict[str, object] | dict[str, str]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())
