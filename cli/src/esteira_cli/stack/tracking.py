"""MLflow's tracking server, on the stack's Postgres and bucket."""

import sys

from esteira_cli.stack.component import Component
from esteira_cli.stack.loopback import answers
from esteira_cli.stack.ports import HOST

NAME = "mlflow"
DATABASE = "mlflow"


def component(port: int, database_url: str, bucket: str, storage: str) -> Component:
    """How the stack starts it: clients write artifacts straight to the bucket."""
    return Component(
        name=NAME,
        argv=(sys.executable, "-m", "esteira_cli.stack.tracking_server"),
        environ={
            "HOST": HOST,
            "PORT": str(port),
            "DATABASE_URL": database_url,
            "ARTIFACT_ROOT": f"gs://{bucket}/mlflow",
            "STORAGE_EMULATOR_HOST": storage,
            "MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOST}:{port},localhost:{port}",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "OMP_NUM_THREADS": "1",
        },
        needs=frozenset({"postgres"}),
        ports=(NAME,),
        address=f"http://{HOST}:{port}",
        ready=lambda: answers(f"http://{HOST}:{port}/health"),
        patience=180.0,
    )
