"""One start of the containers: what Compose does is watched, told, and explained where it fails."""

import subprocess
import time
from collections.abc import Iterable

from esteira_cli.compose.container import Container
from esteira_cli.compose.engine import Engine, indented
from esteira_cli.compose.errors import ComposeError
from esteira_cli.stack.log_lines import readable
from esteira_cli.stack.starter import Report

PATIENCE_S = 300.0
POLL_S = 0.5
TAIL_LINES = 12
SETTLED = ("healthy", "done")
BROKEN = ("failed", "unhealthy")


class Watch:
    """Follows containers until each is healthy, or done if it runs once.

    Args:
        services: the names to wait for.
        again: the command that the user repeats once the cause is mended.
    """

    def __init__(self, engine: Engine, services: Iterable[str], report: Report, again: str) -> None:
        self._engine = engine
        self._services = list(services)
        self._report = report
        self._again = again
        self._told: dict[str, str] = {}
        self._began = time.monotonic()

    def follow(self, compose: subprocess.Popen[bytes]) -> None:
        """Waits for the end of `compose`, and then for the containers.

        Raises:
            ComposeError: Compose failed, a container failed, or one was not healthy in time.
        """
        try:
            while compose.poll() is None:
                self._look(patient=True)
                self._wait(compose)
        finally:
            end(compose)
        if compose.returncode:
            raise ComposeError(self._explain_failure(compose.returncode))
        self.await_health()

    def await_health(self) -> None:
        """Waits for the containers.

        Raises:
            ComposeError: one failed, or was not healthy in time.
        """
        while waiting := self._look(patient=False):
            if self._elapsed() > PATIENCE_S:
                raise ComposeError(self._explain(waiting[0], "was not healthy in time"))
            time.sleep(POLL_S)

    def _look(self, patient: bool) -> list[str]:
        """Tells what changed, and gives the names of those that are not there yet; Compose itself is `patient`."""
        found = self._engine.containers()
        if not found:
            self._began = time.monotonic()  # images are fetched first, and that may take long
        phases = {name: found[name].phase if name in found else "absent" for name in self._services}
        for name, phase in phases.items():
            self._tell(name, phase)
        for name, phase in phases.items():
            if phase == "failed" or (phase in ("unhealthy", "absent") and not patient):
                what = found[name].complaint() if name in found else "was removed by someone else"
                raise ComposeError(self._explain(name, what, found.get(name)))
        return [name for name, phase in phases.items() if phase not in SETTLED]

    def _tell(self, name: str, phase: str) -> None:
        if phase == "absent" or self._told.get(name) == phase:
            return
        self._told[name] = phase
        self._report(name, phase, "" if phase == "starting" else f"{self._elapsed():.1f} s")

    def _wait(self, compose: subprocess.Popen[bytes]) -> None:
        if self._elapsed() > PATIENCE_S:
            raise ComposeError(self._explain_failure(None))
        try:
            compose.wait(timeout=POLL_S)
        except subprocess.TimeoutExpired:
            return

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _explain_failure(self, code: int | None) -> str:
        """Names the container that is to blame; where none is, what Compose said last."""
        found = self._engine.containers()
        suspects = [found[name] for name in self._services if name in found and found[name].is_suspect]
        if suspects:
            worst = max(suspects, key=lambda container: (container.phase in BROKEN, container.restarts))
            return self._explain(worst.service, worst.complaint(), worst)
        ended = f"failed with code {code}" if code else f"did not end within {PATIENCE_S:.0f} s"
        return f"`{' '.join(self._engine.argv('up'))}` {ended}:\n{self._engine.log_tail()}"

    def _explain(self, name: str, what: str, container: Container | None = None) -> str:
        container = container or self._engine.containers().get(name)
        tail = self._engine.tail(container, TAIL_LINES) if container else ["there is no container of it"]
        return (
            f"{name} {what}. The end of `{' '.join(self._engine.argv('logs', name))}`:\n{indented(readable(tail))}\n"
            f"Correct the cause and run `{self._again}` again."
        )


def end(compose: subprocess.Popen[bytes]) -> None:
    """Ends Compose if it still runs: nobody waits for it any more; containers stay as they are."""
    if compose.poll() is None:
        compose.terminate()
        try:
            compose.wait(timeout=10)
        except subprocess.TimeoutExpired:
            compose.kill()
            compose.wait()
