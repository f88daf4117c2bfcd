"""Starts, stops and describes the local stack of one folder."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from esteira_cli.stack import processes
from esteira_cli.stack.blueprint import PORTS, Blueprint, Options
from esteira_cli.stack.component import Component
from esteira_cli.stack.errors import StackError
from esteira_cli.stack.graph import waves, with_needs
from esteira_cli.stack.ports import becomes_free, choose_ports, is_free
from esteira_cli.stack.starter import ORPHAN_SECONDS, Report, Starter, silent
from esteira_cli.stack.state import ProcessRecord, StackState, locked, read_state, write_state

__all__ = ["ComponentState", "Options", "Stack"]

STOP_SECONDS = 15.0


@dataclass(frozen=True)
class ComponentState:
    """How one component is at this moment."""

    name: str
    state: str
    """`healthy`, `unhealthy` (it runs and does not answer) or `down`."""
    address: str
    pid: int | None = None
    uptime_s: float | None = None


class Stack:
    """The stack of one folder; every method may be called by any number of processes at once.

    Args:
        home: the stack's folder: data, logs, `stack.json`. Made when first needed.
        pipelines_dir: the folder of pipelines; None takes the one of the last start.
        options: project, bucket and the like.
    """

    def __init__(self, home: Path, pipelines_dir: Path | None = None, options: Options | None = None) -> None:
        self.home = home.resolve()
        self._pipelines_dir = pipelines_dir.resolve() if pipelines_dir else None
        self._options = options

    def up(self, only: Iterable[str] | None = None, report: Report = silent) -> list[ComponentState]:
        """Starts what is down, and returns when all is healthy.

        Args:
            only: names of components and steps; what they need comes with them. None starts everything.
            report: is told of each thing that begins, is done, or fails.

        Raises:
            ProcessFailed: a process ended or stayed unhealthy.
            StackBusy: another command has been at work on this stack for two minutes.
        """
        self._make_home()
        with locked(self.home, when_busy=lambda: report("stack", "waiting", "another esteira command is at work")):
            blueprint = self._prepare(report)
            parts = blueprint.needs()
            wanted = with_needs(parts if only is None else only, parts)
            Starter(self.home, blueprint, report).start(wanted)
        return [state for state in self.state() if state.name in wanted]

    def down(self, wipe: bool = False, report: Report = silent) -> None:
        """Stops everything, last started first, and leaves no process behind.

        Args:
            wipe: removes the stack's folder too.
        """
        if not self.home.is_dir():
            return
        with locked(self.home, when_busy=lambda: report("stack", "waiting", "another esteira command is at work")):
            self._stop_in_order(report)
            processes.stop(processes.members(self.home), signal.SIGTERM, ORPHAN_SECONDS)
            if wipe:
                shutil.rmtree(self.home)
            else:
                write_state(self.home, msgspec.structs.replace(read_state(self.home), processes={}))

    def kill(self, name: str) -> int:
        """Kills one process the hard way, and nothing else: what a crash does. Returns its pid.

        Raises:
            StackError: it does not run.
        """
        record = read_state(self.home).processes.get(name)
        process = processes.find(record) if record else None
        if process is None:
            raise StackError(f"{name} does not run")
        processes.stop([process], signal.SIGKILL, processes.KILL_SECONDS)
        return process.pid

    def state(self) -> list[ComponentState]:
        """Looks at every component."""
        records = read_state(self.home).processes
        components = self.blueprint().components().values()
        return [_look(component, records.get(component.name)) for component in components]

    def addresses(self) -> dict[str, str]:
        """Where each part is: URLs, `host:port` for Postgres and gRPC, and `database` for SQLAlchemy."""
        return self.blueprint().addresses()

    def environment(self, service: str) -> dict[str, str]:
        """The environment variables that the stack gives to a service."""
        return self.blueprint().environment(service)

    def has_data(self) -> bool:
        """Whether it was ever started: its folder may hold data then."""
        return (self.home / "stack.json").exists()

    def start_command(self, service: str) -> str:  # noqa: ARG002  it starts all that is down
        """What a user says to start a process again that is down."""
        return f"esteira up --state-dir {self.home}"

    def logs_command(self, service: str) -> str:
        """What a user says to see what a process wrote."""
        return f"esteira logs {service} --state-dir {self.home}"

    def wipe_command(self) -> str:
        """What a user says to remove the stack with its data."""
        return f"esteira down --wipe --state-dir {self.home}"

    def log(self, name: str) -> Path:
        """Where a component writes."""
        return processes.log_path(self.home, name)

    def blueprint(self) -> Blueprint:
        """The stack as it was last started.

        Raises:
            StackError: it never was.
        """
        state = read_state(self.home)
        if not state.ports:
            raise StackError(f"there is no stack in {self.home}: start one with `esteira up`")
        return self._blueprint(state)

    def _make_home(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        if self.home.stat().st_uid == os.geteuid():
            self.home.chmod(0o711)
        ignore = self.home / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")

    def _prepare(self, report: Report) -> Blueprint:
        """Settles folder, options and ports for this start, and writes them down."""
        kept = read_state(self.home)
        options = self._options or _kept_options(kept)
        folder = str(self._pipelines_dir or kept.pipelines_dir or Path("pipelines").resolve())
        state = msgspec.structs.replace(
            kept, pipelines_dir=folder, options=msgspec.to_builtins(options), ports=choose_ports(PORTS, kept.ports)
        )
        state = self._evade_strangers(state, report)
        write_state(self.home, state)
        return self._blueprint(state)

    def _evade_strangers(self, state: StackState, report: Report) -> StackState:
        """Gives another port to each component that is down while a foreign process listens on its port."""
        ports = dict(state.ports)
        for component in self._blueprint(state).components().values():
            record = state.processes.get(component.name)
            if record and processes.is_alive(record):
                continue
            for name in [name for name in component.ports if not is_free(ports[name])]:
                self._stop_members(component)
                if not becomes_free(ports[name], ORPHAN_SECONDS):
                    taken = ports.pop(name)
                    ports = choose_ports([name], ports)
                    report(component.name, "moved", f"port {taken} is taken by another program; now {ports[name]}")
        return msgspec.structs.replace(state, ports=ports)

    def _blueprint(self, state: StackState) -> Blueprint:
        folder = self._pipelines_dir or Path(state.pipelines_dir)
        return Blueprint(self.home, folder, self._options or _kept_options(state), state.ports)

    def _stop_in_order(self, report: Report) -> None:
        """Stops what depends on others first; without a readable state there is no order to keep."""
        try:
            blueprint = self.blueprint()
        except StackError:
            return
        components = blueprint.components()
        for wave in reversed(waves(blueprint.needs())):
            self._stop_wave([components[name] for name in wave if name in components], report)

    def _stop_wave(self, components: list[Component], report: Report) -> None:
        threads = [threading.Thread(target=self._stop_one, args=(component, report)) for component in components]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _stop_one(self, component: Component, report: Report) -> None:
        record = read_state(self.home).processes.get(component.name)
        leader = processes.find(record) if record else None
        if leader:
            report(component.name, "stopping", "")
            processes.stop([leader], component.stop_signal, STOP_SECONDS)
        self._stop_members(component)
        if leader:
            report(component.name, "stopped", "")

    def _stop_members(self, component: Component) -> None:
        processes.stop(processes.members(self.home, component), component.stop_signal, ORPHAN_SECONDS)


def _kept_options(state: StackState) -> Options:
    return msgspec.convert(state.options, Options) if state.options else Options()


def _look(component: Component, record: ProcessRecord | None) -> ComponentState:
    process = processes.find(record) if record else None
    if process is None:
        return ComponentState(component.name, "down", component.address)
    health = "healthy" if component.ready() else "unhealthy"
    return ComponentState(component.name, health, component.address, process.pid, time.time() - process.create_time())
