"""The commands `docker` and `docker compose`, and what their answers mean."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from esteira_cli.compose.container import Container, read_containers
from esteira_cli.compose.errors import ComposeError, EngineMissing

PROJECT = "label=com.docker.compose.project={}"
NO_RUN = "label=com.docker.compose.oneoff=False"
"""Leaves out what a user started with `docker compose run`."""
CALL_SECONDS = 300.0
TAIL_LINES = 5
LOG_LINES = 12
INSTEAD = "or use the embedded stack, which needs no containers"


def compose_command() -> tuple[str, ...]:
    """What drives Compose here: the plugin of `docker`, else `docker-compose`.

    Raises:
        EngineMissing: no engine answers, or there is neither of them.
    """
    if shutil.which("docker") is None:
        raise EngineMissing(f"the command `docker` is not installed: install Docker Engine with Compose, {INSTEAD}")
    said = _run(("docker", "version", "--format", "{{.Server.Version}}"))
    if said.returncode:
        raise EngineMissing(
            f"no Docker engine answers ({_last_line(said.stderr)}): start it, for instance with "
            f"`sudo systemctl start docker`, and see that `docker info` works for you, {INSTEAD}"
        )
    for command in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]) and _run((*command, "version")).returncode == 0:
            return command
    raise EngineMissing(
        f"neither `docker compose` nor `docker-compose` works: install the Compose plugin of Docker, {INSTEAD}"
    )


class Engine:
    """One Compose project on the local Docker engine.

    Args:
        project: the name that its containers, volumes and network carry.
        checkout: the folder of docker-compose.yml.
        log: the file that takes what Compose says while it builds and starts.
    """

    def __init__(self, project: str, checkout: Path, log: Path) -> None:
        self._project = project
        self._checkout = checkout
        self._log = log
        self._command: tuple[str, ...] = ()

    def argv(self, *arguments: str) -> tuple[str, ...]:
        """The command of Compose for this project."""
        self._command = self._command or compose_command()
        return (*self._command, "-p", self._project, *arguments)

    def call(self, *arguments: str) -> str:
        """Runs Compose and returns what it prints.

        Raises:
            ComposeError: it failed.
        """
        return self._answer(self.argv(*arguments))

    def begin(self, environ: Mapping[str, str], *arguments: str) -> subprocess.Popen[bytes]:
        """Starts Compose; what it says is appended to the log."""
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self.argv(*arguments),
                cwd=self._checkout,
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def config(self) -> dict[str, Any]:
        """The services of docker-compose.yml, with all variables filled in."""
        read = yaml.safe_load(self.call("config"))
        services: dict[str, Any] = read["services"]
        return services

    def containers(self) -> dict[str, Container]:
        """The project's containers by service; those are left out that were removed while we looked."""
        wanted = ("--filter", PROJECT.format(self._project), "--filter", NO_RUN)
        listed = self._docker("ps", "--all", "--quiet", *wanted).split()
        if not listed:
            return {}
        said = _run(("docker", "inspect", *listed)).stdout
        try:
            return read_containers(said)
        except msgspec.MsgspecError as error:
            raise ComposeError(f"`docker inspect` gave an answer that cannot be read: {error}") from error

    def volumes(self) -> list[str]:
        """The names of the project's volumes."""
        return self._docker("volume", "ls", "--quiet", "--filter", PROJECT.format(self._project)).split()

    def kill(self, container: Container) -> None:
        """Ends a container as a crash would; the engine does not start it again by itself."""
        self._docker("kill", "--signal", "KILL", container.id)

    def start(self, container: Container) -> None:
        """Starts a container that has ended."""
        self._docker("start", container.id)

    def tail(self, container: Container, lines: int) -> list[str]:
        """The last lines that a container wrote."""
        said = _run(("docker", "logs", "--tail", str(lines), container.id))
        return [*said.stdout.splitlines(), *said.stderr.splitlines()][-lines:]

    def log_tail(self) -> str:
        """The end of what Compose itself said, indented."""
        said = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return indented(said[-LOG_LINES:])

    def _docker(self, *arguments: str) -> str:
        return self._answer(("docker", *arguments))

    def _answer(self, argv: tuple[str, ...]) -> str:
        said = _run(argv, self._checkout)
        if said.returncode:
            tail = indented(said.stderr.strip().splitlines()[-TAIL_LINES:])
            raise ComposeError(f"`{' '.join(argv)}` failed with code {said.returncode}:\n{tail}")
        return said.stdout


def _run(argv: tuple[str, ...], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv, cwd=folder, capture_output=True, text=True, errors="replace", timeout=CALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ComposeError(
            f"`{' '.join(argv)}` gave no answer for {CALL_SECONDS:.0f} s: see whether `docker info` does"
        ) from error


def indented(lines: Iterable[str]) -> str:
    """The lines as they stand in a message."""
    return "\n".join(f"  {line}" for line in lines)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it says nothing"])[-1]
