"""A `docker` and a `docker-compose` at the boundary of the process, which answer from files and write down calls."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """#!/bin/sh
name=$(basename "$0")
echo "$name $*" >>"{folder}/calls"
[ "$name $1" = "docker compose" ] && [ ! -e "{folder}/plugin" ] && exit 1
for answer in "$name $*" "$name $1" "$name $3" "$name $1 $2" "$name"; do
  [ -e "{folder}/$answer" ] && exec cat "{folder}/$answer"
  [ -e "{folder}/$answer.failed" ] && {{ cat "{folder}/$answer.failed" >&2; exit 3; }}
done
exit 0
"""
CONFIG = """
services:
  etl:
    build: {context: .}
    environment:
      GOOGLE_CLOUD_PROJECT: proj
      BUCKET: pail
      DATABASE_URL: postgresql+psycopg://esteira@postgres/esteira
      PGPASSWORD: p@ss/word
  postgres:
    image: postgres:17
version: '3.9'
"""


class Docker:
    """What the fake answers, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("docker", "docker-compose"):
            path = folder / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(SCRIPT.format(folder=folder))
            path.chmod(0o755)
        self.answer("docker version", "20.10.24\n")
        self.answer("docker-compose config", CONFIG)

    def answer(self, call: str, text: str) -> None:
        """What a call prints; a call is the command's name and first or third word."""
        (self.folder / call).write_text(text)

    def fail(self, call: str, text: str) -> None:
        """Lets a call fail with a message."""
        (self.folder / f"{call}.failed").write_text(text)

    def contain(self, *inspected: dict[str, Any]) -> None:
        """The containers that there are."""
        self.answer("docker ps", "\n".join(one["Id"] for one in inspected))
        self.answer("docker inspect", json.dumps(inspected))

    def remove(self, command: str) -> None:
        """Uninstalls a command."""
        (self.folder / "bin" / command).unlink()

    def calls(self) -> list[str]:
        """All that was asked so far."""
        return (self.folder / "calls").read_text().splitlines()


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """Puts the fake before everything else on PATH, and takes any real one from it."""
    found = Docker(folder)
    plain = [path for path in os.environ["PATH"].split(":") if not (Path(path) / "docker").exists()]
    monkeypatch.setenv("PATH", ":".join([str(folder / "bin"), *plain, str(tools(folder))]))
    return found


def tools(folder: Path) -> Path:
    """The few commands that the fake itself needs."""
    target = folder / "tools"
    target.mkdir()
    for name in ("sh", "basename", "cat"):
        (target / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
    return target


def inspected(service: str, status: str = "running", health: str | None = None, **more: Any) -> dict[str, Any]:
    """A container as Docker 20.10 describes it, cut to what matters."""
    return {
        "Id": f"id-{service}",
        "RestartCount": more.get("restarts", 0),
        "State": {
            "Status": status,
            "OOMKilled": more.get("out_of_memory", False),
            "Pid": 6370 if status == "running" else 0,
            "ExitCode": more.get("exit_code", 0),
            "StartedAt": "2026-11-24T03:11:57.28403583Z",
            "Health": {"Status": health, "FailingStreak": 0, "Log": []} if health else None,
        },
        "Config": {"Labels": {"com.docker.compose.service": service, "com.docker.compose.oneoff": "False"}},
        "HostConfig": {"RestartPolicy": {"Name": more.get("policy", "unless-stopped"), "MaximumRetryCount": 0}},
    }
