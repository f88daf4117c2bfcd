"""Settings of a service, from its environment, all mistakes told at once.

A service declares one frozen struct that extends `ServiceSettings`; the field `database_url` is the variable
`DATABASE_URL`, and the docstring under a field explains it to whoever forgot it.
"""

import ast
import inspect
import textwrap
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import msgspec

from esteira.exceptions import Problem, SettingsInvalid

GOOGLE_CERTS_URL = "https://www.googleapis.com/oauth2/v1/certs"


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every service is told by its environment."""

    port: int = 8080
    """The port to listen on."""
    host: str = "0.0.0.0"  # noqa: S104  Cloud Run reaches a container from outside
    """The address to listen on."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe kind of log line to write."""
    google_cloud_project: str
    """The Google Cloud project that owns the topics and the bucket."""
    bucket: str
    """The name of the bucket, without gs://."""
    pubsub_emulator_host: str | None = None
    """host:port of a Pub/Sub emulator; read by the client of Pub/Sub too."""
    storage_emulator_host: str | None = None
    """Address of a Cloud Storage emulator; read by the client of Cloud Storage too."""
    k_revision: str = ""
    """The revision of the Cloud Run service that this is; set by Cloud Run."""
    code_version: str = ""
    """The commit of this code; the image brings it."""
    push_authentication: Literal["oidc", "iam", "none"] = "oidc"
    """How pushes prove who sent them. `oidc`: by a signed token. `iam`: by a token whose signature Cloud Run may have
    taken away after its own check, which must be on. `none`: not at all, for emulators that sign nothing."""
    push_audience: str | None = None
    """The audience that the token of a push must name."""
    push_service_account: str | None = None
    """The e-mail address of the service account that pushes."""
    push_certs_url: str = GOOGLE_CERTS_URL
    """Where the certificates are that sign the tokens of pushes."""

    @classmethod
    def problems(cls, values: Mapping[str, Any]) -> list[Problem]:
        """Finds what is wrong between fields; `values` lacks the fields that are wrong by themselves."""
        if values.get("push_authentication", "none") == "none":
            return []
        needed = ("push_audience", "push_service_account")
        mode = values["push_authentication"]
        return [
            Problem(
                name.upper(),
                f"is not set, and PUSH_AUTHENTICATION={mode} needs it: {_explanations(cls)[name]}",
            )
            for name in needed
            if name in values and not values[name]
        ]


class DatabaseSettings(ServiceSettings, frozen=True, kw_only=True):
    """What a service with Postgres is told besides."""

    database_url: str
    """The URL of Postgres, postgresql+psycopg://user:password@host/name, or user@/name?host=/cloudsql/instance."""
    pipelines_dir: Path
    """The folder that holds one folder for each pipeline."""


S = TypeVar("S", bound=msgspec.Struct)


def read_settings(cls: type[S], environ: Mapping[str, str]) -> S:
    """Reads the struct `cls` from `environ`; an empty variable counts as not set.

    Raises:
        SettingsInvalid: names every variable that is missing or wrong, one a line.
    """
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for field in msgspec.structs.fields(cls):
        try:
            values[field.name] = _read(field, environ.get(field.name.upper(), ""))
        except ValueError as error:
            problems.append(Problem(field.name.upper(), _explained(cls, field.name, str(error))))
    problems += _between_fields(cls, values)
    if problems:
        raise SettingsInvalid("\n".join(f"{problem.path} {problem.message}" for problem in problems))
    return cls(**values)


def _between_fields(cls: type[msgspec.Struct], values: Mapping[str, Any]) -> list[Problem]:
    return cls.problems(values) if issubclass(cls, ServiceSettings) else []


def _read(field: msgspec.structs.FieldInfo, text: str) -> Any:
    if not text:
        if field.required:
            raise ValueError("is not set")
        return field.default if field.default is not msgspec.NODEFAULT else cast("Any", field.default_factory)()
    try:
        return msgspec.convert(text, field.type, strict=False, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise ValueError(f"is {text!r}: {error}") from error


def _path(kind: type, text: Any) -> Path:
    if kind is not Path:
        raise NotImplementedError(f"settings cannot be of type {kind.__name__}")
    return Path(text)


def _explained(cls: type, name: str, what: str) -> str:
    explanation = _explanations(cls).get(name)
    return f"{what}: {explanation}" if explanation else what


def _explanations(cls: type) -> dict[str, str]:
    """The docstring under each field, read from the source: Python itself forgets them."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            found |= _field_docstrings(base)
    return found


def _field_docstrings(cls: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):  # no source at hand: the name must do
        return {}
    body = cast("ast.ClassDef", tree.body[0]).body
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }
