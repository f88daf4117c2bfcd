"""ID tokens for calls to a Cloud Run service that lets in whom IAM lets in; MLflow's client takes them as a plugin.

MLflow finds `IdTokenAuthProvider` by its entry point `mlflow.request_auth_provider` and uses it where
`MLFLOW_TRACKING_AUTH` names it: https://mlflow.org/docs/latest/ml/plugins.
"""

from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request
from google.oauth2.id_token import fetch_id_token_credentials
from requests import PreparedRequest
from requests.auth import AuthBase

from esteira.exceptions import Unavailable


class IdTokens(AuthBase):
    """Adds a token of this process's own account that names the called service; threads share one until it expires."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._credentials: dict[str, Any] = {}

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        parts = urlsplit(request.url or "")
        request.headers["Authorization"] = f"Bearer {self.current(f'{parts.scheme}://{parts.netloc}')}"
        return request

    def current(self, audience: str) -> str:
        """A token that is good now.

        Args:
            audience: the address of the service, without a path.

        Raises:
            Unavailable: the account, or who makes its tokens, cannot be reached.
        """
        with self._lock:
            try:
                if audience not in self._credentials:
                    self._credentials[audience] = fetch_id_token_credentials(audience, Request())  # type: ignore[no-untyped-call]
                found = self._credentials[audience]
                if not found.valid:
                    found.refresh(Request())
            except GoogleAuthError as error:
                raise Unavailable(f"no ID token for {audience}: {error}") from error
            return str(found.token)


class IdTokenAuthProvider:
    """What MLflow's client asks for an `Authorization` header where `MLFLOW_TRACKING_AUTH=google-id-token`."""

    _tokens = IdTokens()

    def get_name(self) -> str:
        """The name by which `MLFLOW_TRACKING_AUTH` means this."""
        return "google-id-token"

    def get_auth(self) -> IdTokens:
        """The same tokens for each request."""
        return self._tokens
