"""Runs work in the order of its dependencies, what is independent side by side."""

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from esteira_cli.stack.errors import StackError

Needs = Mapping[str, frozenset[str]]


def with_needs(wanted: Iterable[str], needs: Needs) -> set[str]:
    """Adds to `wanted` all that it needs, directly or not.

    Raises:
        StackError: there is no component of such a name.
    """
    found: set[str] = set()
    queue = list(wanted)
    while queue:
        name = queue.pop()
        if name not in needs:
            raise StackError(f"there is no component {name!r}; there are: {', '.join(sorted(needs))}")
        if name not in found:
            found.add(name)
            queue += needs[name]
    return found


def run_in_order(needs: Needs, work: Callable[[str], None], cancel: threading.Event) -> None:
    """Calls `work` for each name once all it needs is done; the first error sets `cancel` and is raised.

    Needs that are no names of the graph count as done.
    """
    waiting = dict(needs)
    running: dict[Future[None], str] = {}
    with ThreadPoolExecutor(max_workers=max(1, len(needs))) as pool:
        try:
            while waiting or running:
                for name in _startable(waiting, set(running.values())):
                    del waiting[name]
                    running[pool.submit(work, name)] = name
                _collect(running)
        except BaseException:
            cancel.set()
            wait(running)
            raise


def waves(needs: Needs) -> list[set[str]]:
    """Groups names so that each group needs only groups before it: read backwards, the order to stop in."""
    left = dict(needs)
    groups: list[set[str]] = []
    while left:
        groups.append(set(_startable(left, set())))
        left = {name: wanted for name, wanted in left.items() if name not in groups[-1]}
    return groups


def _startable(waiting: Needs, running: set[str]) -> list[str]:
    open_names = set(waiting) | running
    found = [name for name, wanted in waiting.items() if not wanted & open_names]
    if not found and not running:
        raise StackError(f"these need one another: {', '.join(sorted(waiting))}")
    return found


def _collect(running: dict[Future[None], str]) -> None:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        del running[future]
    for future in done:
        future.result()
