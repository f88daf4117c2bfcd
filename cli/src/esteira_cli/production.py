"""A production that is running somewhere: where its services are, and how a command speaks to them.

Addresses come from options or the environment; without any, from the embedded stack of `--state-dir`. The embedded
stack's services take tokens of its own keys. Services behind https take ID tokens of Google, whose audience is the
service's address. Others, such as those of docker compose, take none.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec
import requests

from esteira.exceptions import Conflict, NotFound, PermanentError, SettingsInvalid, Unauthenticated, Unavailable
from esteira_cli.stack.commands import state_dir

F = TypeVar("F", bound=Callable[..., Any])
Tokens = Callable[[str], str | None]
"""Makes the token for an audience; None where none is wanted."""

SERVICES: Final = ("trainer", "monitor", "predictor")
TIMEOUT_S: Final = (5.0, 90.0)
IMPERSONATED: Final = "ESTEIRA_SERVICE_ACCOUNT"
"""The variable that names a service account to speak as."""
API_KEY: Final = "ESTEIRA_API_KEY"
"""The variable with the key that the predictor is shown."""
MEND_KEY: Final = f"set {API_KEY} to a key that it takes for this"
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_ERRORS: Final = {401: Unauthenticated, 403: Unauthenticated, 404: NotFound, 409: Conflict}


def production_options(command: F) -> F:
    """Adds `--trainer-url`, `--monitor-url`, `--predictor-url` and `--state-dir` to a command."""
    for name in reversed(SERVICES):
        variable = f"ESTEIRA_{name.upper()}_URL"
        command = click.option(f"--{name}-url", envvar=variable, metavar="URL", help=f"[env: {variable}]")(command)
    return state_dir(command)


class Production:
    """The services of one production.

    Args:
        urls: service → base URL; a service that is not in it cannot be asked.
        tokens: makes what a service takes as proof of who is asking.
    """

    def __init__(self, urls: Mapping[str, str], tokens: Tokens) -> None:
        self._urls = dict(urls)
        self._tokens = tokens

    def knows(self, service: str) -> bool:
        """Whether the service's address is known."""
        return service in self._urls

    def get(self, service: str, path: str) -> Any:
        """Asks a service; raises as `post` does."""
        return self._call("GET", service, path)

    def post(self, service: str, path: str, body: Mapping[str, Any]) -> Any:
        """Tells a service something.

        Raises:
            Conflict: something else happened meanwhile.
            NotFound: there is no such thing.
            Unauthenticated: the caller may not.
            PermanentError: the service refuses it for another reason.
            Unavailable: the service does not answer.
        """
        return self._call("POST", service, path, body)

    def _call(self, method: str, service: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        url = self._url(service)
        headers = proof(service, self._tokens(url))
        try:
            answer = requests.request(
                method, f"{url}{path}", json=body, headers=headers, timeout=TIMEOUT_S, allow_redirects=False
            )
        except requests.RequestException as error:
            raise Unavailable(f"{service} at {url} does not answer: {error}") from error
        if not answer.ok or answer.is_redirect:
            raise _refusal(service, answer)
        return _decoded(service, answer)

    def _url(self, service: str) -> str:
        if service not in self._urls:
            raise SettingsInvalid(f"where is {service}? give --{service}-url, or set ESTEIRA_{service.upper()}_URL")
        return self._urls[service]


def find_production(home: Path, urls: Mapping[str, str | None]) -> Production:
    """The production that the options name; without any address, the embedded stack in `home`.

    Raises:
        SettingsInvalid: no address is given, and no stack was ever started in `home`.
    """
    given = {name: url.rstrip("/") for name, url in urls.items() if url}
    if given:
        return Production(given, google_token)
    return _embedded(home)


def _embedded(home: Path) -> Production:
    from esteira_cli.pubsub.tokens import sign_token
    from esteira_cli.stack.services import SERVICE_ACCOUNT
    from esteira_cli.stack.stack import Stack

    if not (home / "stack.json").exists():
        raise SettingsInvalid(
            f"no stack was started in {home}: `esteira up` starts one, --trainer-url names another production"
        )
    addresses = Stack(home).addresses()
    keys = home.resolve() / "pubsub"
    return Production(
        {name: addresses[name] for name in SERVICES}, lambda audience: sign_token(keys, audience, SERVICE_ACCOUNT)
    )


def proof(service: str, token: str | None) -> dict[str, str]:
    """The headers that show a service who asks: a token, and to the predictor the key of `ESTEIRA_API_KEY` too."""
    key = os.environ.get(API_KEY) if service == "predictor" else None
    # Cloud Run checks the first of the two, and hands the second on to the service as it is.
    shown = {"X-Serverless-Authorization": f"Bearer {token}", "Authorization": f"Bearer {token}"} if token else {}
    return {**shown, "X-Api-Key": key} if key else shown


def google_token(audience: str) -> str | None:
    """An ID token of Google for a service behind https; None for one that is not.

    The token is of the service account that `ESTEIRA_SERVICE_ACCOUNT` names, as which the caller must be allowed to
    act; else of the caller's own, where the caller is a service account.

    Raises:
        Unauthenticated: there are no credentials that make one.
    """
    if not audience.startswith("https://"):
        return None
    from google.auth.exceptions import GoogleAuthError

    account = os.environ.get(IMPERSONATED)
    try:
        return _impersonated(account, audience) if account else _own(audience)
    except (GoogleAuthError, OSError) as error:
        mend = f"run `gcloud auth application-default login` and set {IMPERSONATED} to a service account in OPERATORS"
        raise Unauthenticated(f"no ID token for {audience}: {error}; {mend}") from error


def _own(audience: str) -> str:
    from google.auth.transport.requests import Request
    from google.oauth2.id_token import fetch_id_token

    return str(fetch_id_token(Request(), audience))  # type: ignore[no-untyped-call]


def _impersonated(account: str, audience: str) -> str:
    import google.auth
    from google.auth import impersonated_credentials
    from google.auth.transport.requests import Request

    source, _ = google.auth.default(scopes=[_SCOPE])
    target = impersonated_credentials.Credentials(source, account, [_SCOPE])  # type: ignore[no-untyped-call]
    made = impersonated_credentials.IDTokenCredentials(target, audience, include_email=True)  # type: ignore[no-untyped-call]
    made.refresh(Request())
    return str(made.token)


def _decoded(service: str, answer: requests.Response) -> Any:
    try:
        return msgspec.json.decode(answer.content)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"{service} answered what is not JSON: {answer.text[:200]!r}") from error


def _refusal(service: str, answer: requests.Response) -> Exception:
    try:
        said = msgspec.json.decode(answer.content)["error"]
        message = f"{said['message']}" + "".join(f"; {found['path']} {found['message']}" for found in said["problems"])
        message += f"; {MEND_KEY}" if service == "predictor" and answer.status_code in (401, 403) else ""
    except (msgspec.MsgspecError, KeyError, TypeError):
        message = answer.text[:200]
    kind = _ERRORS.get(answer.status_code, Unavailable if answer.status_code >= 500 else PermanentError)
    return kind(f"{service} answered {answer.status_code}: {message}")
