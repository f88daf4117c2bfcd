"""What the predictor's environment tells it."""

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from esteira.exceptions import Problem, SettingsInvalid
from esteira.settings import ServiceSettings
from predictor.access import read_keys
from predictor.deadlines import BODY_SECONDS
from predictor.dialects.options import DialectOptions
from predictor.limits import MAX_PENDING_BYTES
from predictor.spool import SPOOL_BYTES

Route = Annotated[str, msgspec.Meta(pattern=r"^/[^<>?#\s]*$")]


class PredictorSettings(ServiceSettings, frozen=True, kw_only=True):
    """The predictor needs the bucket alone; Pub/Sub takes its log."""

    server: Literal["granian", "gunicorn"] = "granian"
    """The HTTP server; read by `predictor.server`, which starts it."""
    pointer_poll_seconds: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    """How often the pointers in the bucket are looked at; `model-promoted` makes it sooner."""
    log_flush_seconds: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """How long a prediction may wait before it is published."""
    model_release: str | None = None
    """Versions to serve whatever the pointers say, such as `sales/12`; several with commas between them."""
    api_keys: str | None = None
    """Lines `<client> <sha256 of the key> <pipelines, * or admin>`; who sends none of them is refused."""
    client_audience: str | None = None
    """The audience that a client's identity token must name."""
    client_accounts: str | None = None
    """E-mail addresses whose identity tokens are let in, with commas between them."""
    client_admins: str | None = None
    """Those that are let in below /admin too."""
    linger_seconds: float = 0.0
    """How long the process stays after all is published: an emulator that keeps messages in memory alone has them
    pushed meanwhile, before its hearers are stopped."""
    max_pending_bytes: Annotated[int, msgspec.Meta(ge=1)] = MAX_PENDING_BYTES
    """Of bodies that a worker answers at once; beyond it clients are told 429."""
    body_seconds: Annotated[float, msgspec.Meta(gt=0)] = BODY_SECONDS
    """How long the body of a request may take to come; then it is answered 408."""
    default_pipeline: str | None = None
    """The pipeline that dialects without a name in the path serve; the only one there is if not set."""
    aip_http_port: int | None = None
    """The port to listen on, before `port`; set by Vertex AI."""
    aip_health_route: Route | None = None
    """The path at which Vertex AI asks for health."""
    aip_predict_route: Route | None = None
    """The path at which Vertex AI asks for predictions."""
    cache_dir: Path | None = None
    """Where releases are kept after download; a temporary folder if not set."""
    spool_dir: Path | None = None
    """Where predictions wait for Pub/Sub, for all workers of this address; a folder below the cache's if not set."""
    spool_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = SPOOL_BYTES
    """How much a worker lets wait before the oldest make room."""
    sample_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05
    """Of predictions, whose raw row is kept for `esteira validate`; 0 keeps none."""

    @classmethod
    def problems(cls, values: Mapping[str, Any]) -> list[Problem]:
        """Finds pins that name no release, keys that are none, and accounts without an audience."""
        pins = split_list(values.get("model_release"))
        wrong = [pin for pin in pins if not re.fullmatch(r"[a-z][a-z0-9_]*/[^/]+", pin)]
        told = _access_problems(values)
        told += [Problem("MODEL_RELEASE", f"names {pin!r}; write <pipeline>/<version>") for pin in wrong]
        return [*super().problems(values), *told]

    @property
    def dialect_options(self) -> DialectOptions:
        """What of this the dialects are told."""
        return DialectOptions(
            default_pipeline=self.default_pipeline,
            health_route=self.aip_health_route,
            predict_route=self.aip_predict_route,
        )

    @property
    def cache(self) -> Path:
        """The folder of releases."""
        return self.cache_dir or Path(tempfile.gettempdir()) / f"esteira-predictor-{os.getuid()}"

    @property
    def spool(self) -> Path:
        """The folder of all spools; what was meant for one Pub/Sub is never sent to another."""
        address = f"{self.google_cloud_project}@{self.pubsub_emulator_host or 'pubsub'}"
        return self.spool_dir or self.cache / "spool" / re.sub(r"[^A-Za-z0-9.@-]", "_", address)

    @property
    def pinned(self) -> dict[str, str]:
        """The version of each pipeline that follows no pointer."""
        pairs = (pin.split("/", 1) for pin in split_list(self.model_release))
        return {pipeline: version for pipeline, version in pairs}  # noqa: C416  mypy reads it as pairs


def split_list(text: str | None) -> list[str]:
    """What stands between the commas."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _access_problems(values: Mapping[str, Any]) -> list[Problem]:
    try:
        read_keys(values.get("api_keys") or "")
    except SettingsInvalid as error:
        return [Problem("API_KEYS", str(error).removeprefix("API_KEYS "))]
    if (values.get("client_accounts") or values.get("client_admins")) and not values.get("client_audience"):
        return [Problem("CLIENT_AUDIENCE", "is not set, and CLIENT_ACCOUNTS and CLIENT_ADMINS need it")]
    return []
