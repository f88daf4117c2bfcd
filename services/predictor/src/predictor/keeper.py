"""The process that talks to the cloud for all workers: `python -m predictor.keeper`, started by `predictor.server`.

It follows the pointers and fetches releases, and publishes what workers spool; the workers only answer. Pub/Sub's
client is imported when there is something to publish: a start does not wait for it.

Whoever started it holds the other end of its standard input. When that is closed, with the seconds that are left
written to it, or because that process was killed, the keeper publishes what is left and ends. Signals it passes over:
they reach a whole group of processes, and it is to be the last.
"""

import gc
import os
import signal
from collections.abc import Mapping

from predictor.supervisor import FORWARDED


def main(environ: Mapping[str, str]) -> None:
    """Works until its standard input ends."""
    gc.disable()  # nothing that is imported is garbage: a tenth of the time to the first release
    from predictor.keeping import keep

    gc.enable()
    keep(environ)


if __name__ == "__main__":
    for number in FORWARDED:
        signal.signal(number, signal.SIG_IGN)
    main(os.environ)
