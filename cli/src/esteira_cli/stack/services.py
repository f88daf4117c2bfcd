"""The four services, and the timer that calls them."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from esteira_cli.stack.component import Component
from esteira_cli.stack.loopback import answers
from esteira_cli.stack.ports import HOST

SERVICES = ("etl", "trainer", "predictor", "monitor")
RECONCILED = ("etl", "trainer", "monitor")
"""Services with `POST /tasks/reconcile`."""
SERVICE_ACCOUNT = "pubsub-push@esteira.local"
"""Whose token every push and every call of the timer carries."""
WORKERS = {"predictor": "2"}
THREADS = {"predictor": {"OMP_NUM_THREADS": "1", "THREADS": "16"}}

EVERYWHERE = ("CODE_VERSION", "K_REVISION")
INHERITED = {
    "etl": (*EVERYWHERE, "LEASE_SECONDS", "MAX_FILE_BYTES", "POOL_SIZE"),
    "trainer": (
        *(*EVERYWHERE, "GITHUB_API_URL", "GITHUB_REPOSITORY", "GITHUB_TOKEN", "LAUNCHER", "LEASE_SECONDS"),
        *("MLFLOW_TRACKING_AUTH", "OPERATORS", "POOL_SIZE", "TRAINING_JOB", "TRAINING_THREADS"),
    ),
    "predictor": (
        *(*EVERYWHERE, "AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE", "API_KEYS", "BODY_SECONDS"),
        *("CLIENT_ACCOUNTS", "CLIENT_ADMINS", "CLIENT_AUDIENCE", "DEFAULT_PIPELINE", "LINGER_SECONDS"),
        *("LOG_FLUSH_SECONDS", "MAX_PENDING_BYTES", "MODEL_RELEASE", "POINTER_POLL_SECONDS", "SAMPLE_SHARE"),
        *("SERVER", "SPOOL_BYTES", "SPOOL_DIR"),
    ),
    "monitor": (*EVERYWHERE, "MLFLOW_TRACKING_AUTH", "POOL_SIZE"),
}
"""Service → its settings that the stack leaves to the environment of the command that starts it."""


def base_url(port: int) -> str:
    """The address of a service, and the audience of the tokens that it takes."""
    return f"http://{HOST}:{port}"


def component(name: str, environ: Mapping[str, str], port: int) -> Component:
    """How the stack starts a service. The predictor lives before it is ready: at first there is no release to serve."""
    health = "live" if name == "predictor" else "ready"
    return Component(
        name=name,
        argv=(sys.executable, "-m", *_server(name)),
        environ={**_inherited(name), **environ},
        needs=frozenset({"bucket", "topology"} | ({"migrations"} if name != "predictor" else set())),
        ports=(name,),
        address=base_url(port),
        ready=lambda: answers(f"{base_url(port)}/health/{health}"),
        patience=90.0,
    )


def _inherited(name: str) -> dict[str, str]:
    """Given again with all the rest, so that a service starts anew where one of them has changed."""
    return {variable: os.environ[variable] for variable in INHERITED[name] if variable in os.environ}


def _server(name: str) -> tuple[str, ...]:
    """The module that serves it, and its arguments; the predictor chooses its server itself."""
    if name == "predictor":
        return ("predictor.server",)
    return ("gunicorn", "--no-control-socket", "-c", "python:esteira.gunicorn", f"{name}.main:create()")


def environment(name: str, port: int, home: Path, shared: Mapping[str, str]) -> dict[str, str]:
    """What a service is told, besides what all of them are told."""
    return {
        **shared,
        "HOST": HOST,
        "PORT": str(port),
        "PUSH_AUDIENCE": base_url(port),
        "CACHE_DIR": str(home / "cache" / name),
        "WEB_CONCURRENCY": WORKERS.get(name, "1"),
        "THREADS": "4",
        **THREADS.get(name, {}),
    }


def timer(ports: Mapping[str, int], home: Path, every: float) -> Component:
    """How the stack starts the timer."""
    calls = tuple(part for name in RECONCILED for part in ("--service", f"{name}={base_url(ports[name])}"))
    return Component(
        name="tick",
        argv=(
            *(sys.executable, "-m", "esteira_cli.main", "tick", "--every", f"{every:g}"),
            *("--keys", str(home / "pubsub"), "--service-account", SERVICE_ACCOUNT, *calls),
        ),
        needs=frozenset({"pubsub"}),
        ready=lambda: True,
    )
