"""Tokens: the key in the state folder, and the claims."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from google.auth import jwt

from esteira_cli.pubsub.tokens import KEY_FILE, load_signing_key, sign_token


def test_key_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    key = load_signing_key(tmp_path)
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert load_signing_key(tmp_path).key_id == key.key_id


def test_all_who_make_the_key_at_once_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        keys = list(pool.map(load_signing_key, [tmp_path] * 4))
    assert len({key.key_id for key in keys}) == 1
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_signed_token_verifies_with_the_certificates(tmp_path: Path) -> None:
    token = sign_token(tmp_path, "https://monitor.example", "timer@demo.iam.gserviceaccount.com")
    certificates = load_signing_key(tmp_path).certificates()
    claims = jwt.decode(token, certs=certificates, audience="https://monitor.example")
    assert claims["email"] == "timer@demo.iam.gserviceaccount.com"
    assert claims["email_verified"] is True


def test_jwks_names_the_key_that_signs(tmp_path: Path) -> None:
    key = load_signing_key(tmp_path)
    published = key.jwks()["keys"]
    assert isinstance(published, list)
    assert published[0]["kid"] == jwt.decode_header(key.sign("a", "b@c"))["kid"]
    assert {"kty": "RSA", "alg": "RS256", "use": "sig", "e": "AQAB"}.items() <= published[0].items()


def test_file_without_a_key_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_text("no key")
    with pytest.raises(ValueError, match="delete the file"):
        load_signing_key(tmp_path)
