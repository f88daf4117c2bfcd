"""What the stack is made of: long-running components, and steps that run once."""

import hashlib
import json
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


def nothing() -> None:
    """Does nothing: the default of the hooks below."""


@dataclass(frozen=True)
class Component:
    """A process, how to start it and how to see that it is healthy."""

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], bool]
    """Tells whether it serves by now; never raises, and takes a second or two at most."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """What it gets besides the environment of the command that starts it."""
    needs: frozenset[str] = frozenset()
    """Components and steps that must be done before."""
    ports: tuple[str, ...] = ()
    """The names of the ports it listens on."""
    address: str = ""
    prepare: Callable[[], None] = nothing
    """Runs before each start."""
    complete: Callable[[], None] = nothing
    """Runs once it is healthy, before whatever needs it."""
    user: str | None = None
    """The user to run as, where it must not run as root."""
    working_dir: Path | None = None
    """The folder that it alone works in; its orphans are found by it."""
    stop_signal: signal.Signals = signal.SIGTERM
    patience: float = 60.0
    """Seconds until it must be healthy."""

    @property
    def fingerprint(self) -> str:
        """Changes when the command or its environment changes."""
        return hashlib.sha256(json.dumps([self.argv, sorted(self.environ.items())]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Step:
    """Work that is done once at each start, and is harmless to repeat."""

    name: str
    run: Callable[[], None]
    needs: frozenset[str] = frozenset()
