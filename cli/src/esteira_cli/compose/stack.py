"""Starts, stops and describes the containers of docker-compose.yml."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from esteira_cli.compose.container import Container
from esteira_cli.compose.engine import Engine
from esteira_cli.compose.errors import ComposeError
from esteira_cli.compose.ports import addresses, port_variables, read_ports, settle_ports
from esteira_cli.compose.starter import Watch, end
from esteira_cli.stack.ports import HOST
from esteira_cli.stack.stack import ComponentState
from esteira_cli.stack.starter import Report, silent
from esteira_cli.stack.state import locked

COMPOSE_FILE = "docker-compose.yml"
CLIENT = ("GOOGLE_CLOUD_PROJECT", "BUCKET")
"""What a client on this machine is told as the services are."""
STATES = {"starting": "unhealthy", "failed": "down"}


class ComposeStack:
    """The containers of one checkout, as a Compose project that is this folder's alone.

    Args:
        home: the folder of the ports and of Compose's log; data are in volumes. Made when first needed.
        checkout: the folder with docker-compose.yml.
        project: the name of the Compose project; None makes one of `home`, so that no other project is touched.
    """

    def __init__(self, home: Path, checkout: Path, project: str | None = None) -> None:
        self.home = home.resolve()
        self.checkout = checkout.resolve()
        self.project = project or project_name(self.home)
        self._log = self.home / "compose.log"
        self._engine = Engine(self.project, self.checkout, self._log)
        self._ports_file = self.home / "ports.json"
        self._config: dict[str, Any] = {}

    def up(self, *, report: Report = silent) -> list[ComponentState]:
        """Builds images, starts what is down, and returns when all is healthy.

        Raises:
            EngineMissing: no Docker engine answers.
            ComposeError: an image could not be built, or a container ended or stayed unhealthy.
            StackBusy: another command has been at work on these containers for two minutes.
        """
        self._check_checkout()
        self._make_home()
        with locked(self.home, when_busy=lambda: report("stack", "waiting", "another esteira command is at work")):
            environ = port_variables(settle_ports(self._ports_file, self._running()))
            self._build(environ, report)
            watch = self._watch(report)
            watch.follow(self._engine.begin(environ, "up", "--detach", "--no-build", "--remove-orphans"))
        return self.state()

    def down(self, wipe: bool = False, report: Report = silent) -> None:
        """Stops and removes the containers; what is in volumes stays.

        Args:
            wipe: removes volumes and the stack's folder too.
        """
        if not self.home.is_dir():
            return
        with locked(self.home, when_busy=lambda: report("stack", "waiting", "another esteira command is at work")):
            report("containers", "stopping", "")
            self._engine.call("down", "--remove-orphans", *(("--volumes",) if wipe else ()))
            report("containers", "stopped", "")
            if wipe:
                shutil.rmtree(self.home)

    def kill(self, service: str) -> None:
        """Kills one container the hard way, and nothing else: what a crash does.

        Raises:
            ComposeError: it does not run.
        """
        container = self._container(service)
        if container.status != "running":
            raise ComposeError(f"{service} does not run")
        self._engine.kill(container)

    def start(self, service: str, report: Report = silent) -> None:
        """Starts one container that has ended, and returns when it is healthy.

        Raises:
            ComposeError: there is no such container, or it was not healthy in time.
        """
        self._engine.start(self._container(service))
        Watch(self._engine, [service], report, self.start_command(service)).await_health()

    def state(self) -> list[ComponentState]:
        """Looks at every container."""
        where, found = self.addresses(), self._engine.containers()
        return [_state(name, found.get(name), where.get(name, "")) for name in self.services()]

    def services(self) -> list[str]:
        """The names in docker-compose.yml."""
        return list(self.configured())

    def configured(self) -> dict[str, Any]:
        """The services of docker-compose.yml with all variables filled in."""
        self._config = self._config or self._engine.config()
        return self._config

    def addresses(self) -> dict[str, str]:
        """Where each part is: URLs, `host:port` for Postgres and gRPC, and `database` for SQLAlchemy.

        Raises:
            ComposeError: the stack never was started.
        """
        ports = read_ports(self._ports_file)
        if not ports:
            raise ComposeError(f"no containers were ever started from {self.home}")
        return {**addresses(ports), "database": self._database(ports["postgres"])}

    def environment(self, service: str) -> dict[str, str]:
        """The environment of a command on this machine that acts in a service's place."""
        where, told = self.addresses(), self._told(service)
        return {
            **{name: str(told[name]) for name in CLIENT},
            "PUBSUB_EMULATOR_HOST": where["pubsub"],
            "STORAGE_EMULATOR_HOST": where["bucket"],
            "DATABASE_URL": where["database"],
            "MLFLOW_TRACKING_URI": where["mlflow"],
        }

    def has_data(self) -> bool:
        """Whether there are volumes, or containers that may have some."""
        return bool(self._engine.volumes() or self._engine.containers())

    def start_command(self, service: str) -> str:
        """What a user says to start a container again that is down."""
        return " ".join(self._engine.argv("start", service))

    def logs_command(self, service: str) -> str:
        """What a user says to see what a container wrote."""
        return " ".join(self._engine.argv("logs", service))

    def wipe_command(self) -> str:
        """What a user says to remove containers and data."""
        return " ".join(self._engine.argv("down", "--volumes"))

    def tail(self, service: str, lines: int) -> list[str]:
        """The last lines that a container wrote; none where there is no container."""
        container = self._engine.containers().get(service)
        return self._engine.tail(container, lines) if container else []

    def _check_checkout(self) -> None:
        if not (self.checkout / COMPOSE_FILE).is_file():
            raise ComposeError(
                f"there is no {COMPOSE_FILE} in {self.checkout}: containers are built from a checkout of Esteira, "
                "and hold the pipelines in its folder `pipelines`"
            )

    def _make_home(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / ".gitignore").write_text("*\n")

    def _build(self, environ: dict[str, str], report: Report) -> None:
        report("images", "starting", "the first build takes some minutes")
        build = self._engine.begin(environ, "build")
        try:
            code = build.wait()
        finally:
            end(build)
        if code:
            report("images", "failed", "")
            raise ComposeError(f"the images could not be built; the end of {self._log}:\n{self._engine.log_tail()}")
        report("images", "done", "")

    def _watch(self, report: Report) -> Watch:
        return Watch(self._engine, self.services(), report, "esteira demo --stack compose")

    def _running(self) -> list[str]:
        return [name for name, container in self._engine.containers().items() if container.status == "running"]

    def _container(self, service: str) -> Container:
        found = self._engine.containers()
        if service not in found:
            raise ComposeError(f"there is no container {service!r}; there are: {', '.join(sorted(found)) or 'none'}")
        return found[service]

    def _told(self, service: str) -> dict[str, Any]:
        told: dict[str, Any] = self.configured()[service]["environment"]
        return told

    def _database(self, port: int) -> str:
        """The services' own database, as this machine reaches it."""
        told = self._told("etl")
        url = make_url(told["DATABASE_URL"]).set(host=HOST, port=port, password=told["PGPASSWORD"])
        return url.render_as_string(hide_password=False)


def project_name(home: Path) -> str:
    """A name of a Compose project for a stack's folder."""
    return f"esteira-{hashlib.sha256(str(home).encode()).hexdigest()[:8]}"


def _state(name: str, container: Container | None, address: str) -> ComponentState:
    if container is None:
        return ComponentState(name, "down", address)
    phase = container.phase
    return ComponentState(name, STATES.get(phase, phase), address, container.pid or None, container.uptime_s)
