"""Sends batches over several connections, takes the answers in order, and finds the rows that are refused."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

import msgspec

from esteira_cli.client import AccessRefused, Client, PipelineNotServed, PredictorRefused

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 2
"""Batches for each connection that are in flight or answered and not yet taken."""


class Row(msgspec.Struct, frozen=True):
    """A row that can be sent."""

    line: int
    given: Sequence[Any]
    """As the file has it."""
    sent: dict[str, Any]
    """As the predictor is asked."""


class Refusal(msgspec.Struct, frozen=True):
    """A row without an answer."""

    line: int
    given: Sequence[Any]
    reasons: list[str]


class Batch(msgspec.Struct):
    """Rows that follow one another, and what among them could not even be sent."""

    rows: list[Row] = []
    refusals: list[Refusal] = []


class Answered(msgspec.Struct):
    """Every row of a batch is in one of the two lists, each in the order of the file."""

    answers: list[tuple[Row, dict[str, Any]]]
    refusals: list[Refusal]


def ask(client: Client, pipeline: str, batch: Batch) -> Answered:
    """Asks for a batch; what the predictor refuses is set aside, and the rest asked again.

    Raises:
        PredictorUnavailable: no answer.
        PredictorRefused: the whole pipeline, or the caller, is refused.
    """
    answers: list[tuple[Row, dict[str, Any]]] = []
    refusals = list(batch.refusals)
    waiting = deque([batch.rows])
    while waiting:
        if not (rows := waiting.popleft()):
            continue
        try:
            answers += zip(rows, client.predict(pipeline, [row.sent for row in rows]), strict=True)
        except PredictorRefused as error:
            found, left = _set_aside(rows, error)
            refusals += found
            waiting.extendleft(reversed(left))
    return Answered(answers, sorted(refusals, key=lambda refusal: refusal.line))


def _set_aside(rows: list[Row], error: PredictorRefused) -> tuple[list[Refusal], list[list[Row]]]:
    """The rows that are refused, and what is to be asked again: halves where the predictor names no row."""
    if isinstance(error, AccessRefused | PipelineNotServed):
        raise error
    if named := {at: reasons for at, reasons in error.by_row().items() if at < len(rows)}:
        refusals = [Refusal(rows[at].line, rows[at].given, reasons) for at, reasons in named.items()]
        return refusals, [[row for at, row in enumerate(rows) if at not in named]]
    if len(rows) == 1:
        return [Refusal(rows[0].line, rows[0].given, [str(error)])], []
    middle = len(rows) // 2
    return [], [rows[:middle], rows[middle:]]


def in_order(work: Callable[[T], R], items: Iterable[T], hands: int) -> Generator[R]:
    """The result of each item in the order of the items, worked at by several threads.

    Items are taken as results are, a few ahead. The threads end with the process: nobody who interrupts waits for a
    request to time out.
    """
    tasks: SimpleQueue[tuple[Future[R], T] | None] = SimpleQueue()
    waiting: deque[Future[R]] = deque()
    for _ in range(hands):
        threading.Thread(target=_work, args=(work, tasks), daemon=True).start()
    try:
        for item in items:
            waiting.append(Future())
            tasks.put((waiting[-1], item))
            if len(waiting) >= hands * AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        for _ in range(hands):
            tasks.put(None)


def _work(work: Callable[[T], R], tasks: "SimpleQueue[tuple[Future[R], T] | None]") -> None:
    while (task := tasks.get()) is not None:
        future, item = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work(item))
            except BaseException as error:  # raised again where the result is taken
                future.set_exception(error)
