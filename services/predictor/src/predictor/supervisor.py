"""Keeps two processes: the keeper, which talks to the cloud, and the server, whose workers answer.

A keeper that dies is started again; workers go on meanwhile. When the server has ended, the keeper is told, publishes
what is left, and ends last. Where this process itself is killed the kernel tells the server, and the keeper sees the
end of its standard input.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import logging

STATE_DIR = "PREDICTOR_STATE"
"""Names the folder through which the keeper tells workers what it has."""
END_SECONDS = 9.5
"""From being told to end until the last process has; Cloud Run kills after ten."""
PAUSE_SECONDS = 1.0
"""Before a keeper that died is started again."""
LEAST_SECONDS = 0.5
"""What the keeper gets, however long the server took."""
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
FORWARDED = {*_ENDING, signal.SIGHUP}
"""To the server; the keeper passes them over."""
_WAITED_FOR = {*FORWARDED, signal.SIGCHLD}
_PR_SET_PDEATHSIG = 1


class Supervisor:
    """Starts and ends both. Signals are blocked from `run` on, and taken one by one.

    Args:
        keeper: the command line of the keeper.
        serve: serves in a process of its own until that is told to end.
    """

    def __init__(self, keeper: list[str], serve: Callable[[], None]) -> None:
        self._command = keeper
        self._serve = serve
        self._keeper = self._server = 0
        self._pipe = -1
        self._restart_at = float("inf")
        self._end_by = float("inf")

    def run(self) -> int:
        """Runs both until the server has ended; gives its exit status."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
        self._start_keeper()
        self._server = _fork(self._run_server)
        status = self._wait()
        self._end_keeper()
        return status

    def _start_keeper(self) -> None:
        reads, self._pipe = os.pipe()
        self._keeper = _fork(lambda: self._become_keeper(reads))
        self._restart_at = float("inf")
        os.close(reads)

    def _become_keeper(self, reads: int) -> NoReturn:
        for number in FORWARDED:
            signal.signal(number, signal.SIG_IGN)  # from the first moment on: they may be sent to the whole group
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED_FOR)
        os.dup2(reads, 0)
        os.execv(self._command[0], self._command)  # noqa: S606  no shell is wanted

    def _run_server(self) -> None:
        import ctypes

        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED_FOR)
        os.close(self._pipe)
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
        self._serve()

    def _wait(self) -> int:
        while True:
            left = max(0.0, min(self._restart_at, self._end_by) - time.monotonic())
            found = signal.sigtimedwait(_WAITED_FOR, min(left, 3600.0))
            if found is not None and found.si_signo in FORWARDED:
                self._forward(found.si_signo)
            if (status := self._reap()) is not None:
                return status
            if time.monotonic() >= self._restart_at:
                self._start_keeper()
            if time.monotonic() >= self._end_by:
                os.kill(self._server, signal.SIGKILL)
                self._end_by = float("inf")

    def _forward(self, number: int) -> None:
        os.kill(self._server, number)
        if number in _ENDING and self._end_by == float("inf"):
            self._end_by = time.monotonic() + END_SECONDS - LEAST_SECONDS

    def _reap(self) -> int | None:
        """Collects all that have ended, orphans too; the server's exit status, if it has."""
        status = None
        while True:
            try:
                pid, waited = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return status
            if not pid:
                return status
            if pid == self._server:
                status = _shell_status(waited)
            if pid == self._keeper:
                self._mourn(_shell_status(waited))

    def _mourn(self, status: int) -> None:
        _logger().error("keeper ended; it is started again", extra={"status": status})
        os.close(self._pipe)
        self._keeper = 0
        self._restart_at = time.monotonic() + PAUSE_SECONDS

    def _end_keeper(self) -> None:
        """It has the time that is left to publish what is left; one that dies of it has one successor."""
        begun = self._end_by - END_SECONDS + LEAST_SECONDS if self._end_by < float("inf") else time.monotonic()
        deadline = max(begun + END_SECONDS, time.monotonic() + LEAST_SECONDS)
        if not self._keeper:
            self._start_keeper()
        if (status := self._tell_to_end(deadline)) and deadline - time.monotonic() > LEAST_SECONDS:
            _logger().error("keeper ended; it is started again", extra={"status": status})
            self._start_keeper()
            self._tell_to_end(deadline)

    def _tell_to_end(self, deadline: float) -> int:
        """Its exit status: 0 where it did, or was killed for not doing so in time."""
        with suppress(BrokenPipeError):  # it has just died
            os.write(self._pipe, f"{deadline - time.monotonic() - LEAST_SECONDS / 2:.2f}".encode())
        os.close(self._pipe)
        while time.monotonic() < deadline:
            pid, waited = os.waitpid(self._keeper, os.WNOHANG)
            if pid:
                return _shell_status(waited)
            signal.sigtimedwait({signal.SIGCHLD}, max(0.0, min(deadline - time.monotonic(), 0.1)))
        _logger().error("keeper did not end in time; it is killed")
        os.kill(self._keeper, signal.SIGKILL)
        os.waitpid(self._keeper, 0)
        return 0


def _fork(run: Callable[[], object]) -> int:
    """Runs `run` in a process of its own; gives its id."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    status = 1
    try:
        run()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _shell_status(waited: int) -> int:
    """An exit status; 128 and its number where a signal ended the process."""
    status = os.waitstatus_to_exitcode(waited)
    return status if status >= 0 else 128 - status


def _logger() -> "logging.Logger":
    """Loaded when there is something to say: nothing here is to keep the keeper from starting."""
    import logging

    from esteira.logs import configure_logging

    configure_logging("predictor")
    return logging.getLogger(__name__)
