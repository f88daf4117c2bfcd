"""MLflow's server in one process: `python -m esteira_cli.stack.tracking_server`.

`mlflow server` imports MLflow twice, once to prepare the database and once more in the server that it starts. This
does in one process what that command does in two (its options `--backend-store-uri`, `--default-artifact-root`,
`--no-serve-artifacts`, `--workers 1`), and is up in half the time.
"""

import os
import signal
import sys
from collections.abc import Mapping


def serve(environ: Mapping[str, str]) -> None:
    """Prepares MLflow's tables and serves until it is told to stop."""
    database, artifacts = environ["DATABASE_URL"], environ["ARTIFACT_ROOT"]
    _configure(database, artifacts)
    import uvicorn
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(database, database, artifacts)
    uvicorn.run(
        "mlflow.server.fastapi_app:app",
        host=environ["HOST"],
        port=int(environ["PORT"]),
        log_level="warning",
        timeout_graceful_shutdown=3,
    )


def _configure(database: str, artifacts: str) -> None:
    """Sets what MLflow's own command sets for its server, before MLflow is imported."""
    from mlflow.server.constants import ARTIFACT_ROOT_ENV_VAR, BACKEND_STORE_URI_ENV_VAR, REGISTRY_STORE_URI_ENV_VAR

    os.environ[BACKEND_STORE_URI_ENV_VAR] = database
    os.environ[REGISTRY_STORE_URI_ENV_VAR] = database
    os.environ[ARTIFACT_ROOT_ENV_VAR] = artifacts
    os.environ["_MLFLOW_SGI_NAME"] = "uvicorn"


if __name__ == "__main__":
    # uvicorn hears it once it serves; before, a container's first process would not.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    serve(os.environ)
