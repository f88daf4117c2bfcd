"""Where the predictor is, and what lets the caller in."""

import threading
import time
from pathlib import Path
from typing import Any, Final

from esteira.exceptions import SettingsInvalid, Unauthenticated
from esteira_cli.client import AccessRefused, Client
from esteira_cli.production import API_KEY, MEND_KEY, google_token

URL: Final = "ESTEIRA_PREDICTOR_URL"
TOKEN_S: Final = 45 * 60
"""How long an ID token is used; Google's are good for an hour."""


def find_url(url: str | None, home: Path) -> str:
    """The address that is given, or else that of the embedded stack in `home`.

    Raises:
        SettingsInvalid: there is none, or its predictor does not run.
    """
    if url:
        return url
    from esteira_cli.stack.stack import Stack

    if not (home / "stack.json").exists():
        raise SettingsInvalid(
            f"where is the predictor? no stack was started in {home}: `esteira up` starts one; "
            f"--url (or {URL}) names a predictor elsewhere"
        )
    (found,) = [state for state in Stack(home).state() if state.name == "predictor"]
    if found.state == "down":
        raise SettingsInvalid(
            f"the predictor of the stack in {home} does not run: `esteira up --state-dir {home}` starts it; "
            f"--url (or {URL}) names another"
        )
    return Stack(home).addresses()["predictor"]


def connect(url: str, pipeline: str, api_key: str | None, connections: int) -> tuple[Client, dict[str, Any]]:
    """A client that is let in, and the pipeline as the predictor describes it.

    Who is refused behind https shows an ID token of Google too: beside the API key where what stands before the
    predictor, such as Cloud Run's IAM, refused; in place of none where the predictor did.

    Raises:
        PredictorError: it does not answer, or has no such pipeline, or what stands before it lets nobody in.
        Unauthenticated: it lets nobody in without a key, or there are no credentials that make a token.
    """
    try:
        return _connect(url, pipeline, api_key, connections)
    except AccessRefused as refused:
        if not refused.code:  # it was not the predictor that refused
            raise
        raise Unauthenticated(f"{refused}; {MEND_KEY}") from refused


def _connect(url: str, pipeline: str, api_key: str | None, connections: int) -> tuple[Client, dict[str, Any]]:
    access: dict[str, Any] = {"api_key": api_key}
    try:
        described = _describe(url, pipeline, access)
    except ValueError as error:
        raise SettingsInvalid(str(error)) from error
    except AccessRefused as refused:
        if not token_helps(url, api_key, refused):
            raise
        access["token"] = _RenewedToken(url, refused)
        described = _describe(url, pipeline, access)
    return Client(url, connections=connections, **access), described


def token_helps(url: str, api_key: str | None, refused: AccessRefused) -> bool:
    """Whether an ID token may let in who was refused; it is shown to nobody in plain text.

    A predictor that does not take a key says so with a code, and would not look at a token beside it.
    """
    return url.startswith("https://") and not (api_key and refused.code)


def _describe(url: str, pipeline: str, access: dict[str, Any]) -> dict[str, Any]:
    """With little patience: an address where nobody is should be told soon."""
    with Client(url, retries=1, **access) as client:
        return client.pipeline(pipeline)


class _RenewedToken:
    """An ID token for an address, made anew before it is too old."""

    def __init__(self, url: str, refused: AccessRefused) -> None:
        self._url = url
        self._refused = refused
        self._lock = threading.Lock()
        self._token = ""
        self._made = -TOKEN_S * 1.0

    def __call__(self) -> str:
        with self._lock:
            if not self._token or time.monotonic() - self._made > TOKEN_S:
                self._token, self._made = self._make(), time.monotonic()
            return self._token

    def _make(self) -> str:
        try:
            return google_token(self._url) or ""
        except Unauthenticated as error:
            raise Unauthenticated(f"{self._refused}; set {API_KEY} to a key, or: {error}") from error
