"""Logging in to Cloud SQL without a secret: the password of an IAM user is an access token of its own account.

Cloud Run brings the instance to a Unix socket in a folder `/cloudsql/PROJECT:REGION:INSTANCE` and encrypts what goes
through; the login stays with the client. A token lives for an hour at most and is read at login alone: connections
outlive it.
"""

import re
from threading import Lock
from typing import Any

from sqlalchemy import URL, Engine, event

from esteira.exceptions import Unavailable

LOGIN_SCOPE = "https://www.googleapis.com/auth/sqlservice.login"
"""Good for logging in to databases, and for nothing else."""
_SOCKET = re.compile(r"/[^/:]+(:[^/:]+){2,3}/?")


def needs_token(url: URL) -> bool:
    """Whether the URL names a Cloud SQL socket and no password: an IAM user is the only one who may come so."""
    host = url.query.get("host", "")
    return not url.password and isinstance(host, str) and _SOCKET.search(host) is not None


def log_in_with_tokens(engine: Engine) -> None:
    """Gives each new connection of `engine` a token that is good now."""
    tokens = _Tokens()

    @event.listens_for(engine, "do_connect")
    def provide(_dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
        parameters["password"] = tokens.current()


class _Tokens:
    """The access tokens of this process's own account; threads share one until it is about to expire."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._credentials: Any = None

    def current(self) -> str:
        import google.auth
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request

        with self._lock:
            try:
                if self._credentials is None:
                    self._credentials, _ = google.auth.default(scopes=[LOGIN_SCOPE])
                if not self._credentials.valid:
                    self._credentials.refresh(Request())
            except GoogleAuthError as error:
                raise Unavailable(f"no access token to log in to Cloud SQL with: {error}") from error
            return str(self._credentials.token)
