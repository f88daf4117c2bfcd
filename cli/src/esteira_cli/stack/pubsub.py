"""The Pub/Sub emulator, as a component of the stack."""

import sys
from pathlib import Path

from esteira_cli.stack.component import Component
from esteira_cli.stack.loopback import answers
from esteira_cli.stack.ports import HOST

NAME = "pubsub"


def component(home: Path, port: int, http_port: int) -> Component:
    """How the stack starts it."""
    folder = home / "pubsub"
    options = ("--state-dir", str(folder), "--host", HOST, "--port", str(port), "--http-port", str(http_port))
    return Component(
        name=NAME,
        argv=(sys.executable, "-m", "esteira_cli.main", "pubsub", *options),
        ports=(NAME, "pubsub-http"),
        address=f"{HOST}:{port}",
        prepare=lambda: folder.mkdir(mode=0o700, exist_ok=True),
        ready=lambda: answers(f"http://{HOST}:{http_port}/health/ready"),
    )
