"""Gunicorn's worker, drained when it is told to end; see docs/adr/0008-granian-serves-predictions.md."""

import os
from concurrent.futures import Future
from threading import Timer
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from predictor.listening import ACCEPT_SECONDS, begin_no_more, holds


class DrainingWorker(ThreadWorker):  # type: ignore[misc]
    """Told to end, gthread leaves connections unaccepted, and closes each after its answer, also where that was begun
    before and does not say `Connection: close`: the next request is on its way then. This worker takes all of them,
    and closes a connection when an answer said so.

    The listening sockets are shared. Where this worker alone is to end, as when the arbiter reloads, what it does not
    accept is the others', and nothing may be done to the sockets."""

    alive: bool
    ppid: int
    _is_told = False

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Ends when what is begun is accepted: between two steps of the worker's loop, not within one."""
        self.method_queue.defer(self._begin_to_end, sig, frame)

    def _begin_to_end(self, sig: int, frame: Any) -> None:
        if self._is_told:
            return
        self._is_told = True
        if self._is_alone():
            super().handle_exit(sig, frame)
            return
        for listener in self.sockets:
            begin_no_more(listener.fileno())
        Timer(ACCEPT_SECONDS, self.method_queue.defer, (super().handle_exit, sig, frame)).start()

    def _is_alone(self) -> bool:
        """Whether the arbiter goes on: where it ends it closes its listening sockets, and tells its workers then."""
        is_held = any(holds(self.ppid, listener.fileno()) for listener in self.sockets)
        return is_held and os.getppid() == self.ppid

    def set_accept_enabled(self, enabled: bool) -> None:
        """Closes the listening sockets at the end: they would take connections that nobody accepts."""
        super().set_accept_enabled(enabled)
        if not self.alive:
            for listener in self.sockets:
                listener.close()

    def finish_request(self, conn: Any, fs: "Future[Any]") -> None:
        """Keeps the connection where the answer said that it is kept, whatever this worker was told since."""
        alive, self.alive = self.alive, True
        try:
            super().finish_request(conn, fs)
        finally:
            self.alive = alive
