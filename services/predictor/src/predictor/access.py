"""Who may ask the predictor what: API keys, or identity tokens of Google, or everybody where neither is set.

A key is a line `<client> <sha256 of the key, in hexadecimal> <pipelines>` of `API_KEYS`, where the pipelines are names
with commas between them, `*` for all, and `admin` for the routes below /admin. Keys are drawn by machines (`esteira
key`), so that a plain hash keeps them; the given one is compared with every line in constant time.
"""

import hashlib
import hmac
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from esteira.exceptions import EsteiraError, Forbidden, SettingsInvalid, Unauthenticated
from esteira.pushes import PushVerifier

EVERY = "*"
ADMIN = "admin"
TOKEN_SECONDS = 60.0
"""For how long a token that was verified is believed again."""
_TOKENS = 10_000
_LINE = re.compile(r"(?P<client>[\w.@-]+) +(?P<sha256>[0-9a-f]{64}) +(?P<scopes>[\w*]+(,[\w*]+)*)", re.ASCII)


class ApiKey(msgspec.Struct, frozen=True):
    """Whom a key belongs to, and what it opens."""

    client: str
    sha256: bytes
    scopes: frozenset[str]
    """Names of pipelines, `*`, `admin`."""


def read_keys(text: str) -> list[ApiKey]:
    """Reads the lines of `API_KEYS`; empty ones and those that begin with # are passed over.

    Raises:
        SettingsInvalid: names the lines that are no keys, without their content.
    """
    lines = [(number, line.strip()) for number, line in enumerate(re.split(r"[\n;]", text), 1)]
    matches = [(number, _LINE.fullmatch(line)) for number, line in lines if line and not line.startswith("#")]
    wrong = [number for number, match in matches if match is None]
    if wrong:
        numbers = ", ".join(map(str, wrong))
        form = "<client> <sha256 of the key> <pipelines, * or admin>"
        raise SettingsInvalid(f"API_KEYS line {numbers}: expected `{form}`")
    return [
        ApiKey(match["client"], bytes.fromhex(match["sha256"]), frozenset(match["scopes"].split(",")))
        for _, match in matches
        if match is not None
    ]


class Access:
    """Decides on requests; threads may share it.

    Args:
        keys: that may be sent as `X-Api-Key`.
        verifier: of tokens that may be sent as `Authorization: Bearer`.
        accounts: e-mail addresses whose tokens may ask for everything but /admin.
        admins: those whose tokens may ask for that too.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        keys: Collection[ApiKey] = (),
        verifier: PushVerifier | None = None,
        accounts: Collection[str] = (),
        admins: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = list(keys)
        self._verifier = verifier
        self._admins = frozenset(admins)
        self._accounts = frozenset(accounts) | self._admins
        self._clock = clock
        self._believed: dict[bytes, tuple[str, float]] = {}
        self._lock = threading.Lock()
        self.takes_keys, self.takes_tokens = bool(self._keys), bool(self._accounts)
        self.is_open = not self.takes_keys and not self.takes_tokens
        """Whether everybody may ask, but for /admin."""

    def require(self, environ: Mapping[str, Any], scope: str | None) -> str | None:
        """Lets the request of a WSGI environment in; gives who it is, None where nobody is asked.

        Args:
            environ: its `HTTP_X_API_KEY` and `HTTP_AUTHORIZATION` are looked at.
            scope: the pipeline that it is about, `admin`, or None where any key will do.

        Raises:
            Unauthenticated: no key and no token, or none that is known.
            Forbidden: one that is known, and not for this.
            Unavailable: a token cannot be verified now.
        """
        if self.is_open and scope != ADMIN:
            return None
        given = environ.get("HTTP_X_API_KEY")
        if given:
            return self._by_key(given, scope)
        if self.takes_tokens and environ.get("HTTP_AUTHORIZATION"):
            return self._by_token(environ["HTTP_AUTHORIZATION"], scope)
        ways = [*(["X-Api-Key"] if self.takes_keys else []), *(["a bearer token"] if self.takes_tokens else [])]
        if not ways:
            raise Forbidden("the routes below /admin need API_KEYS, or CLIENT_ADMINS, to be set")
        raise Unauthenticated(f"send {' or '.join(ways)}")

    def opens(self, environ: Mapping[str, Any], pipeline: str) -> bool:
        """Whether the request of a WSGI environment may ask about the pipeline."""
        try:
            self.require(environ, pipeline)
        except EsteiraError:
            return False
        return True

    def _by_key(self, given: str, scope: str | None) -> str:
        digest = hashlib.sha256(given.encode()).digest()
        found = [key for key in self._keys if hmac.compare_digest(key.sha256, digest)]
        if not found:
            raise Unauthenticated("the API key is not known")
        opened = frozenset[str]().union(*(key.scopes for key in found))
        if scope is not None and scope not in opened and (scope == ADMIN or EVERY not in opened):
            raise Forbidden(f"the API key of {found[0].client} is not for {scope}")
        return found[0].client

    def _by_token(self, authorization: str, scope: str | None) -> str:
        assert self._verifier is not None  # noqa: S101  accounts are set with an audience alone
        digest = hashlib.sha256(authorization.encode(errors="replace")).digest()
        email, until = self._believed.get(digest, ("", 0.0))
        if self._clock() >= until:
            email = self._verifier.verify(authorization, self._accounts)
            self._believe(digest, email)
        if email not in self._accounts:
            raise Forbidden(f"{email} may push events, and nothing else")
        if scope == ADMIN and email not in self._admins:
            raise Forbidden(f"{email} is none of CLIENT_ADMINS")
        return email

    def _believe(self, digest: bytes, email: str) -> None:
        with self._lock:
            if len(self._believed) >= _TOKENS:
                self._believed.clear()
            self._believed[digest] = (email, self._clock() + TOKEN_SECONDS)
