"""`esteira demo --stack compose` run as a user runs it, in a Compose project of its own."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from e2e.played import ROOT, TAIL_LINES, Demo, Plan
from esteira_cli.compose import ComposeStack
from esteira_cli.compose.engine import compose_command
from esteira_cli.compose.errors import EngineMissing
from esteira_cli.compose.stack import COMPOSE_FILE

BASE = re.compile(r"^FROM\s+(\S+)", re.MULTILINE)
PULL_S = 300
END_S = 60


def skip_without_containers(home: Path) -> None:
    """Skips, and says why, where no container can be started."""
    try:
        compose_command()
    except EngineMissing as error:
        pytest.skip(f"NO CONTAINERS HERE, compose is not tested: {error}")
    for image in _public_images(home):
        if not _have(image):
            pytest.skip(f"NO CONTAINERS HERE, compose is not tested: the image {image} cannot be pulled")


def overridden(file: Path, environ: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What makes Compose give services other variables than docker-compose.yml does."""
    file.write_text(yaml.safe_dump({"services": {name: {"environment": dict(own)} for name, own in environ.items()}}))
    return {"COMPOSE_FILE": f"{ROOT / COMPOSE_FILE}:{file}"}


def _public_images(home: Path) -> set[str]:
    """What docker-compose.yml and the Dockerfiles take from a registry."""
    services = ComposeStack(home, ROOT).configured().values()
    files = {ROOT / service["build"]["dockerfile"] for service in services if "build" in service}
    stages = {name for file in files for name in BASE.findall(file.read_text()) if ":" in name}
    return stages | {service["image"] for service in services if "build" not in service}


def _have(image: str) -> bool:
    return any(
        subprocess.run(["docker", *command, image], capture_output=True, timeout=PULL_S, check=False).returncode == 0
        for command in (("image", "inspect"), ("pull", "--quiet"))
    )


class ComposedDemo(Demo):
    """One run of the demo on containers."""

    kind = "compose"

    def __init__(self, home: Path, plan: Plan, environ: Mapping[str, str] | None = None, stays: bool = False) -> None:
        super().__init__(home, plan, environ, stays)
        self.home = home.with_name(f"{home.name}-compose")
        self.stack = ComposeStack(self.home, ROOT)

    def stop(self) -> None:
        """Ends it, and removes containers and volumes."""
        if self.runs():
            self.interrupt()
            self._give_time()
        super().stop()

    def take_down(self) -> None:
        """Removes containers and volumes."""
        self.stack.down(wipe=True)

    def tails(self) -> dict[str, list[str]]:
        """The last lines of each container."""
        return {name: self.stack.tail(name, TAIL_LINES) for name in self.stack.services()}

    def _give_time(self) -> None:
        """It may have a Compose at work, which it ends by itself."""
        try:
            self.process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            return
