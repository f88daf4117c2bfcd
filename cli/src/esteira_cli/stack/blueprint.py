"""Which components and steps the stack has, given its ports: everything there is to know before starting anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from esteira_cli.stack import bucket, pubsub, services, steps, tracking
from esteira_cli.stack.component import Component, Step
from esteira_cli.stack.ports import HOST
from esteira_cli.stack.postgres import Postgres

DATABASE = "esteira"
PORTS = ("postgres", "pubsub", "pubsub-http", "bucket", "mlflow", *services.SERVICES)


@dataclass(frozen=True)
class Options:
    """What may differ between two stacks."""

    project: str = "esteira-local"
    bucket: str = "esteira-local"
    tick_seconds: float = 2.0
    """Pause between two reconciliations."""
    log_level: str = "info"
    durable: bool = True
    """Whether Postgres waits for the disk: without it, data survive the death of processes, not of the machine."""


class Blueprint:
    """The stack of one folder, with its ports.

    Args:
        home: the stack's folder.
        pipelines_dir: the folder of pipelines.
        ports: a port for each name in `PORTS`.
    """

    def __init__(self, home: Path, pipelines_dir: Path, options: Options, ports: Mapping[str, int]) -> None:
        self.home = home
        self.options = options
        self.pipelines_dir = pipelines_dir
        self._ports = ports
        self.postgres = Postgres(home, ports["postgres"], (DATABASE, tracking.DATABASE), options.durable)

    def components(self) -> dict[str, Component]:
        """Every process, by name."""
        ports, options = self._ports, self.options
        found = [
            self.postgres.component(),
            pubsub.component(self.home, ports["pubsub"], ports["pubsub-http"]),
            bucket.component(self.home, ports["bucket"], options.project, options.bucket, self._pubsub_host),
            tracking.component(
                ports["mlflow"], self.postgres.url(tracking.DATABASE), options.bucket, self.addresses()["bucket"]
            ),
            *(services.component(name, self.environment(name), ports[name]) for name in services.SERVICES),
            services.timer(ports, self.home, options.tick_seconds),
        ]
        return {component.name: component for component in found}

    def steps(self) -> dict[str, Step]:
        """Every step, by name."""
        endpoints = {name: services.base_url(self._ports[name]) for name in services.SERVICES}
        found = [
            Step("migrations", lambda: steps.migrate(self.postgres.url(DATABASE)), frozenset({"postgres"})),
            Step(
                "topology",
                lambda: steps.apply_topology(
                    self._pubsub_host, self.options.project, endpoints, services.SERVICE_ACCOUNT
                ),
                frozenset({"pubsub"}),
            ),
        ]
        return {step.name: step for step in found}

    def needs(self) -> dict[str, frozenset[str]]:
        """What each component and step waits for."""
        everything: list[Component | Step] = [*self.components().values(), *self.steps().values()]
        return {part.name: part.needs for part in everything}

    def addresses(self) -> dict[str, str]:
        """Where each part is: URLs, but `host:port` for gRPC."""
        web = {name: f"http://{HOST}:{self._ports[name]}" for name in ("bucket", "mlflow", *services.SERVICES)}
        return {
            **web,
            "postgres": f"{HOST}:{self._ports['postgres']}",
            "pubsub": self._pubsub_host,
            "pubsub-http": f"http://{HOST}:{self._ports['pubsub-http']}",
            "database": self.postgres.url(DATABASE),
        }

    def environment(self, service: str) -> dict[str, str]:
        """The environment of a service, or of a command that acts in its place."""
        return services.environment(service, self._ports[service], self.home, self._shared_environment())

    def _shared_environment(self) -> dict[str, str]:
        where = self.addresses()
        return {
            "LOG_LEVEL": self.options.log_level,
            "GOOGLE_CLOUD_PROJECT": self.options.project,
            "BUCKET": self.options.bucket,
            "PUBSUB_EMULATOR_HOST": where["pubsub"],
            "STORAGE_EMULATOR_HOST": where["bucket"],
            "PUSH_AUTHENTICATION": "oidc",
            "PUSH_SERVICE_ACCOUNT": services.SERVICE_ACCOUNT,
            "PUSH_CERTS_URL": f"{where['pubsub-http']}/oauth2/v1/certs",
            "DATABASE_URL": where["database"],
            "PIPELINES_DIR": str(self.pipelines_dir),
            "MLFLOW_TRACKING_URI": where["mlflow"],
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }

    @property
    def _pubsub_host(self) -> str:
        return f"{HOST}:{self._ports['pubsub']}"
