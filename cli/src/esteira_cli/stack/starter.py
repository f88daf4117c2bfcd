"""One start of the stack: what is down is started, in the order of health, independent parts side by side."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from esteira_cli.stack import processes
from esteira_cli.stack.blueprint import Blueprint
from esteira_cli.stack.component import Component, Step
from esteira_cli.stack.errors import Cancelled, ProcessFailed, StackError
from esteira_cli.stack.graph import run_in_order
from esteira_cli.stack.log_lines import readable
from esteira_cli.stack.state import ProcessRecord, read_state, write_state

Report = Callable[[str, str, str], None]
"""Is told (name, phase, detail); phases: waiting, moved, starting, healthy, kept, failed, stopping, stopped."""

FIRST_POLL, LONGEST_POLL = 0.02, 0.25
ORPHAN_SECONDS = 3.0


def silent(name: str, phase: str, detail: str) -> None:
    """Reports to nobody."""


class Starter:
    """Brings parts of one stack up; its caller holds the stack's lock."""

    def __init__(self, home: Path, blueprint: Blueprint, report: Report) -> None:
        self._home = home
        self._components = blueprint.components()
        self._steps = blueprint.steps()
        self._needs = blueprint.needs()
        self._report = report
        self._cancel = threading.Event()
        self._writing = threading.Lock()

    def start(self, wanted: set[str]) -> None:
        """Starts the parts that are down, and waits until all are healthy.

        Raises:
            ProcessFailed: one ended, or was not healthy in time.
        """
        idle = all(self._is_up(self._components[name]) for name in wanted if name in self._components)
        parts = {name: self._needs[name] for name in wanted if not (idle and name in self._steps)}
        run_in_order(parts, self._do, self._cancel)

    def _do(self, name: str) -> None:
        if self._cancel.is_set():
            raise Cancelled(f"{name} was not started")
        began = time.monotonic()
        try:
            phase = self._run(self._steps[name]) if name in self._steps else self._ensure(self._components[name])
        except Cancelled:
            raise
        except Exception as error:
            self._report(name, "failed", "")
            if isinstance(error, StackError):
                raise
            raise StackError(f"{name} failed: {type(error).__name__}: {error}") from error
        self._report(name, phase, f"{time.monotonic() - began:.1f} s")

    def _run(self, step: Step) -> str:
        self._report(step.name, "starting", "")
        step.run()
        return "done"

    def _ensure(self, component: Component) -> str:
        if self._is_up(component) and component.ready():
            component.complete()
            return "kept"
        record = self._record(component) if self._is_up(component) else None
        self._await_health(component, record or self._launch(component))
        component.complete()
        return "healthy"

    def _launch(self, component: Component) -> ProcessRecord:
        self._report(component.name, "starting", "")
        orphans = processes.members(self._home, component)
        if orphans:
            processes.stop(orphans, component.stop_signal, ORPHAN_SECONDS)
        component.prepare()
        record = processes.launch(component, self._home)
        self._remember(component.name, record)
        return record

    def _await_health(self, component: Component, record: ProcessRecord) -> None:
        deadline, pause = time.monotonic() + component.patience, FIRST_POLL
        while not component.ready():
            if not processes.is_alive(record):
                raise ProcessFailed(self._explain(component, "ended while it started"))
            if time.monotonic() > deadline:
                raise ProcessFailed(self._explain(component, f"was not healthy after {component.patience:.0f} s"))
            if self._cancel.wait(pause):
                raise Cancelled(f"nobody waits for {component.name} any more")
            pause = min(pause * 1.5, LONGEST_POLL)
        if not processes.is_alive(record):
            raise ProcessFailed(self._explain(component, "ended while it started"))

    def _explain(self, component: Component, what: str) -> str:
        log = processes.log_path(self._home, component.name)
        tail = "\n".join(f"  {line}" for line in readable(processes.log_tail(self._home, component.name)))
        return f"{component.name} {what}. The end of {log}:\n{tail}\nCorrect the cause and run `esteira up` again."

    def _is_up(self, component: Component) -> bool:
        """Runs, and was started with the command and environment that it would get now."""
        record = self._record(component)
        return record is not None and record.fingerprint == component.fingerprint and processes.is_alive(record)

    def _record(self, component: Component) -> ProcessRecord | None:
        with self._writing:
            return read_state(self._home).processes.get(component.name)

    def _remember(self, name: str, record: ProcessRecord) -> None:
        with self._writing:
            state = read_state(self._home)
            write_state(self._home, msgspec.structs.replace(state, processes={**state.processes, name: record}))
