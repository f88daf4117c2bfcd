"""What a container starts as its first process ends when it is told to, also while it waits for a database."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

STARTED_S = 60.0


@pytest.mark.parametrize("module", ["esteira.database", "esteira_cli.stack.tracking_server"])
def test_a_migration_that_waits_ends_when_it_is_told_to(module: str, tmp_path: Path, socket_enabled: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(STARTED_S)
        url = f"postgresql+psycopg://esteira@127.0.0.1:{silent.getsockname()[1]}/esteira"
        environ = {**os.environ, "DATABASE_URL": url, "ARTIFACT_ROOT": str(tmp_path), "HOST": "127.0.0.1", "PORT": "1"}
        process = subprocess.Popen([sys.executable, "-m", module], env=environ, stderr=subprocess.DEVNULL)
        try:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=10) == 1  # by its own hand: a first process is not ended by the signal
        finally:
            process.kill()
            process.wait()
