"""Gunicorn's worker, drained when it is told to end; see docs/adr/0008-granian-serves-predictions.md."""

from concurrent.futures import Future
from typing import Any

from gunicorn.workers.gthread import ThreadWorker


class DrainingWorker(ThreadWorker):  # type: ignore[misc]
    """Told to end, gthread closes each connection after its answer, also where that was begun before and does not say
    `Connection: close`: the next request is on its way then. This worker takes that too, and its answer says so."""

    alive: bool

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Ends between two steps of the worker's loop, not within one."""
        self.method_queue.defer(super().handle_exit, sig, frame)

    def finish_request(self, conn: Any, fs: "Future[Any]") -> None:
        """Keeps the connection where the answer said that it is kept, whatever this worker was told since."""
        alive, self.alive = self.alive, True
        try:
            super().finish_request(conn, fs)
        finally:
            self.alive = alive
