"""Work that several threads do at once."""

import threading
from collections.abc import Callable


def run_at_once(work: Callable[[int], None], count: int = 4) -> None:
    """Runs `work` with the numbers from 0 on, in a thread each, and waits for all."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
