"""SIGTERM under load: whether each request on a connection that is kept open has its answer, and the log each answer.

A client sends its next request as soon as it has an answer, and leaves when an answer says `Connection: close`, as
clients of a load balancer do. So each open connection has one request under way, and whatever is sent and not answered
counts as dropped: also a request that crosses the server's closing of the connection, which HTTP/1.1 cannot tell from
one that was taken and forgotten (RFC 9112, 9.5), and which many clients send again by themselves.
"""

import select
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec
from load import Connection
from process import Server, running
from sides import Side
from sink import Sink

LOAD_S = 0.5
"""Before the server is told to end."""
PATIENCE_S = 15.0
"""After it; Cloud Run kills after ten."""
_CLOSE = b"\r\nconnection: close"


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """What one ending showed."""

    answered: int
    """Good answers that came whole, also before SIGTERM."""
    dropped: int
    """Requests that were sent and had no answer, a part of one, or another status than 200; not counted are answers of
    a worker that has just started and not loaded the release yet."""
    published: int
    """Predictions that the log has when all processes have ended."""
    exit_code: int
    seconds: float
    """From SIGTERM to the end of the first process, which is the last."""

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, and it ended well."""
        return not self.dropped and self.published == self.answered and self.exit_code == 0


def end_under_load(side: Side, sink: Sink) -> Ending:
    """Starts a server and ends it while all connections are busy."""
    before, route = sink.predictions(), side.routes[0]
    with running(side.command, side.environ, side.folder, route.answers) as server:
        told_at, answered, dropped = _ask_until_it_ends(route.connect(1), server)
        code = server.wait(PATIENCE_S)
        seconds = time.perf_counter() - told_at
    return Ending(
        answered=answered + 1,  # it was asked once whether it is there
        dropped=dropped,
        published=sink.predictions() - before,
        exit_code=code,
        seconds=seconds,
    )


def summarize_endings(endings: Sequence[Ending]) -> dict[str, Any]:
    """What the last line says of them."""
    if not endings:
        return {}
    return {
        "endings": len(endings),
        "clean": sum(one.is_clean for one in endings),
        "answered": sum(one.answered for one in endings),
        "dropped": sum(one.dropped for one in endings),
        "published": sum(one.published for one in endings),
        "exit_codes": sorted({one.exit_code for one in endings}),
        "median_s": round(median(one.seconds for one in endings), 2),
        "most_s": round(max(one.seconds for one in endings), 2),
    }


def _ask_until_it_ends(connections: list[Connection], server: Server) -> tuple[float, int, int]:
    """When it was told to end; how many requests were answered, and how many were not."""
    clients = {client.socket.fileno(): client for client in connections}
    poll = select.epoll()
    for number, client in clients.items():
        poll.register(number, select.EPOLLIN)
        client.send()
    served: set[int] = set()
    answered = dropped = 0
    tell_at, told = time.perf_counter() + LOAD_S, False
    while clients and (now := time.perf_counter()) < tell_at + PATIENCE_S:
        if now >= tell_at and len(served) == len(connections) and not told:
            server.terminate()
            tell_at, told = now, True
        for number, _ in poll.poll(0.05):
            client = clients[number]
            try:
                good = client.receive()
                if good is None:
                    continue
                if good:
                    served.add(number)
                    answered += 1
                else:
                    dropped += number in served
                if _CLOSE not in client.head:
                    client.send()
                    continue
            except OSError:
                dropped += 1
            clients.pop(number).socket.close()
    for client in clients.values():
        client.socket.close()
    poll.close()
    return tell_at, answered, dropped + len(clients)
