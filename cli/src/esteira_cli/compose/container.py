"""What `docker inspect` says of a container."""

import time
from datetime import datetime

import msgspec

SERVICE = "com.docker.compose.service"
RESTARTS = 3
"""A container that ended and was started again so often will not stay up by itself."""


class _Health(msgspec.Struct, rename="pascal"):
    status: str = ""


class _State(msgspec.Struct, rename="pascal"):
    status: str
    exit_code: int = 0
    pid: int = 0
    started_at: str = ""
    health: _Health | None = None
    oom_killed: bool = msgspec.field(name="OOMKilled", default=False)


class _Config(msgspec.Struct, rename="pascal"):
    labels: dict[str, str] | None = None


class _RestartPolicy(msgspec.Struct, rename="pascal"):
    name: str = ""


class _HostConfig(msgspec.Struct, rename="pascal"):
    restart_policy: _RestartPolicy = msgspec.field(default_factory=_RestartPolicy)


class _Inspected(msgspec.Struct, rename="pascal"):
    id: str
    state: _State
    config: _Config
    restart_count: int = 0
    host_config: _HostConfig = msgspec.field(default_factory=_HostConfig)


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A container of one service, at one moment."""

    id: str
    service: str
    status: str
    """`created`, `running`, `restarting`, `exited` and the like."""
    health: str | None
    """`starting`, `healthy` or `unhealthy`; None where nothing checks it."""
    exit_code: int
    out_of_memory: bool
    restarts: int
    runs_once: bool
    """Whether it is a one-shot, whose end is no failure: the engine is not to start it again."""
    pid: int
    started_at: str

    @property
    def phase(self) -> str:
        """How far it is, as the stack reports it: `starting`, `healthy`, `done`, `failed`, `unhealthy` or `down`."""
        if self.status == "running":
            return "starting" if self.runs_once else self.health or "healthy"
        if self.status in ("created", "restarting"):
            return "failed" if self.restarts >= RESTARTS else "starting"
        if self.runs_once and self.status == "exited":
            return "failed" if self.exit_code else "done"
        return "down"

    @property
    def is_suspect(self) -> bool:
        """Whether it may be why others could not be started."""
        return self.phase in ("failed", "unhealthy", "down") or self.restarts > 0

    @property
    def uptime_s(self) -> float | None:
        """Seconds since it was started; None while it does not run."""
        if self.status != "running":
            return None
        return time.time() - datetime.fromisoformat(self.started_at).timestamp()

    def complaint(self) -> str:
        """What is wrong with it, as the end of a sentence."""
        if self.status == "running" and not self.restarts:
            return f"is {self.health or 'running'}"
        again = f"; the engine started it again {self.restarts} times" if self.restarts else ""
        why = "for want of memory" if self.out_of_memory else f"with code {self.exit_code}"
        return f"ended {why}{again}"


def read_containers(inspected: str | bytes) -> dict[str, Container]:
    """The containers in an answer of `docker inspect`, by service.

    Raises:
        msgspec.MsgspecError: it is not such an answer.
    """
    found = [_container(one) for one in msgspec.json.decode(inspected, type=list[_Inspected])]
    return {container.service: container for container in found if container.service}


def _container(one: _Inspected) -> Container:
    state = one.state
    return Container(
        id=one.id,
        service=(one.config.labels or {}).get(SERVICE, ""),
        status=state.status,
        health=state.health.status if state.health else None,
        exit_code=state.exit_code,
        out_of_memory=state.oom_killed,
        restarts=one.restart_count,
        runs_once=one.host_config.restart_policy.name in ("", "no"),
        pid=state.pid,
        started_at=state.started_at,
    )
