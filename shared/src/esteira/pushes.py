"""What Pub/Sub pushes: the envelope around a message, and the token that proves who sent it.

google.auth is imported with the first token, by `load_verifier`: many processes never see one.
"""

import base64
import binascii
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from esteira.exceptions import BadInput, Problem, SettingsInvalid, Unauthenticated, Unavailable
from esteira.settings import GOOGLE_CERTS_URL, ServiceSettings

logger = logging.getLogger(__name__)

ISSUERS = ("accounts.google.com", "https://accounts.google.com")
CLOCK_SKEW_SECONDS = 10
REFETCH_SECONDS = 30.0
MAX_EVENT_ID = 512
SIGNATURE_REMOVED = "SIGNATURE_REMOVED_BY_GOOGLE"
"""What Cloud Run puts in the place of the signature of a token that its own check has accepted, so that the container
cannot pass the token on: https://cloud.google.com/run/docs/authenticating/service-to-service."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery of a message."""

    event_id: str
    """The CloudEvents id; Pub/Sub's message id where the sender gave none, as the bucket does."""
    attributes: dict[str, str]
    data: bytes
    attempt: int | None = None
    """1 for the first; known only where the subscription has a dead-letter topic."""
    subscription: str = ""


class _Message(msgspec.Struct):
    data: str | None = None
    attributes: dict[str, str] | None = None
    message_id: str | None = None
    messageId: str | None = None  # noqa: N815  both spellings are sent


class _Envelope(msgspec.Struct):
    message: _Message
    subscription: str = ""
    deliveryAttempt: int | None = None  # noqa: N815  Pub/Sub's spelling


def parse_push(body: bytes) -> Delivery:
    """Reads the envelope of a push; fields that it does not know are passed over.

    Raises:
        BadInput: it is not an envelope, has no id, or its data is not base64.
    """
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BadInput([Problem("", f"is not the envelope of a Pub/Sub push: {error}")]) from error
    attributes = envelope.message.attributes or {}
    return Delivery(
        event_id=_event_id(envelope.message, attributes),
        attributes=attributes,
        data=_decoded(envelope.message.data or ""),
        attempt=envelope.deliveryAttempt,
        subscription=envelope.subscription,
    )


def _event_id(message: _Message, attributes: Mapping[str, str]) -> str:
    found = attributes.get("ce-id") or message.message_id or message.messageId
    if not found:
        raise BadInput([Problem("message.messageId", "is missing, and so is the attribute ce-id")])
    if len(found) > MAX_EVENT_ID or "\0" in found:
        raise BadInput([Problem("message.attributes.ce-id", f"has NUL or more than {MAX_EVENT_ID} characters")])
    return found


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput([Problem("message.data", f"is not base64: {error}")]) from error


class PushVerifier:
    """Checks the OpenID Connect token of a push: https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions.

    Args:
        audience: what the token must be meant for.
        service_account: the e-mail address that the token must carry.
        certs_url: where the signers' certificates are; plain http is for loopback addresses alone.
        clock: seconds that only grow.
        behind_iam: nothing reaches this process but what IAM let in, so that a token without signature was verified.
    """

    def __init__(
        self,
        audience: str,
        service_account: str,
        certs_url: str = GOOGLE_CERTS_URL,
        clock: Callable[[], float] = time.monotonic,
        behind_iam: bool = False,
    ) -> None:
        if not audience or not service_account:
            raise SettingsInvalid("a push needs an audience and a service account to be verified against")
        self._audience = audience
        self._service_account = service_account
        self._behind_iam = behind_iam
        self._certificates = _Certificates(certs_url, clock)

    def verify(
        self, authorization: str | None, others: Collection[str] = (), serverless_authorization: str | None = None
    ) -> str:
        """Accepts the value of an `Authorization` header, or raises.

        Args:
            authorization: the header's value.
            others: e-mail addresses that may call besides the service account that pushes.
            serverless_authorization: the value of `X-Serverless-Authorization`, which IAM checks in its place if sent.

        Returns:
            The e-mail address that the token proves.

        Raises:
            Unauthenticated: no token, or not one that such a caller sent to this audience just now.
            Unavailable: the certificates cannot be fetched.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("the request has no bearer token")
        token = token.strip()
        if token.endswith(f".{SIGNATURE_REMOVED}"):
            claims = self._claims_that_iam_checked(token, serverless_authorization)
        else:
            claims = self._claims(token)
        return self._check_claims(claims, {self._service_account, *others})

    def _claims_that_iam_checked(self, token: str, serverless_authorization: str | None) -> Mapping[str, Any]:
        if not self._behind_iam:
            raise Unauthenticated(
                "the token has no signature: Cloud Run took it away, which needs PUSH_AUTHENTICATION=iam"
            )
        if serverless_authorization is not None:
            raise Unauthenticated(
                "the token has no signature, and IAM has looked at X-Serverless-Authorization instead"
            )
        from google.auth import jwt
        from google.auth.exceptions import GoogleAuthError

        try:
            claims: Mapping[str, Any] = jwt.decode(token, verify=False)  # type: ignore[no-untyped-call]
            audience, issued, expires = claims["aud"], float(claims["iat"]), float(claims["exp"])
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError, GoogleAuthError) as error:
            raise Unauthenticated(f"the token is refused: {error}") from error
        if audience != self._audience:
            raise Unauthenticated(f"the token is meant for {audience!r}, not for {self._audience!r}")
        if not issued - CLOCK_SKEW_SECONDS <= time.time() <= expires + CLOCK_SKEW_SECONDS:
            raise Unauthenticated("the token has expired, or is not valid yet")
        return claims

    def _claims(self, token: str) -> Mapping[str, Any]:
        from google.auth import jwt
        from google.auth.exceptions import GoogleAuthError

        try:
            header = jwt.decode_header(token)  # type: ignore[no-untyped-call]
            if header.get("alg") != "RS256":
                raise Unauthenticated("the token is not signed with RS256")
            certificate = self._certificates.get(header.get("kid"))
            claims: Mapping[str, Any] = jwt.decode(  # type: ignore[no-untyped-call]
                token, certificate, audience=self._audience, clock_skew_in_seconds=CLOCK_SKEW_SECONDS
            )
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError, GoogleAuthError) as error:
            raise Unauthenticated(f"the token is refused: {error}") from error
        return claims

    @staticmethod
    def _check_claims(claims: Mapping[str, Any], callers: Collection[str]) -> str:
        if claims.get("iss") not in ISSUERS:
            raise Unauthenticated("the token is not issued by Google")
        email = claims.get("email")
        if not isinstance(email, str) or email not in callers or claims.get("email_verified") is not True:
            raise Unauthenticated("the token is not of the service account that pushes, nor of anyone else admitted")
        return email


def load_verifier() -> None:
    """Imports what verifying a token needs, where the first one must not wait for it."""
    import google.auth.jwt
    import google.auth.transport.requests  # noqa: F401


def make_verifier(settings: ServiceSettings) -> PushVerifier | None:
    """The verifier that the settings ask for; None where pushes carry no token."""
    if settings.push_authentication == "none":
        return None
    return PushVerifier(
        settings.push_audience or "",
        settings.push_service_account or "",
        settings.push_certs_url,
        behind_iam=settings.push_authentication == "iam",
    )


class _Certificates:
    """Certificates by key id, kept as long as their answer allows; old ones serve on while none can be fetched."""

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise SettingsInvalid(f"PUSH_CERTS_URL is {url!r}: certificates come by https, or from this machine")
        self._url = url
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}
        self._fresh_until = float("-inf")
        self._tried_at = float("-inf")

    def get(self, kid: Any) -> str:
        with self._lock:
            if kid not in self._known or self._clock() >= self._fresh_until:
                self._refresh()
            if kid in self._known:
                return self._known[kid]
        raise Unauthenticated("the token is signed with a key that its issuer does not publish")

    def _refresh(self) -> None:
        """Fetches, at most once in `REFETCH_SECONDS`, for anyone may send tokens with unknown keys."""
        from google.auth.exceptions import GoogleAuthError

        if self._clock() - self._tried_at < REFETCH_SECONDS and self._known:
            return
        self._tried_at = self._clock()
        try:
            self._known, seconds = _fetch(self._url)
            self._fresh_until = self._clock() + seconds
        except (GoogleAuthError, ValueError, TypeError, AttributeError) as error:
            if not self._known:
                raise Unavailable(f"no certificates from {self._url}: {error}") from error
            logger.warning("certificates not refreshed", extra={"url": self._url, "error": str(error)})


def _fetch(url: str) -> tuple[dict[str, str], float]:
    from google.auth.transport.requests import Request

    response = Request()(url, method="GET", timeout=5)
    if response.status != 200:
        raise ValueError(f"answered {response.status}")
    known = json.loads(response.data)
    if not known or not all(isinstance(text, str) for text in known.values()):
        raise ValueError("does not map key ids to PEM certificates")
    match = re.search(r"max-age=(\d{1,9})", response.headers.get("cache-control") or "")
    return known, max(float(match[1]) if match else 300.0, REFETCH_SECONDS)
