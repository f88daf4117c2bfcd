"""The keeper's two threads: one follows the pointers, one publishes what workers spool."""

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from esteira.bucket import Bucket
from esteira.exceptions import TransientError
from esteira.logs import configure_logging
from esteira.publisher import Publisher
from esteira.settings import read_settings
from predictor.hints import Ear
from predictor.memory import give_back_at_rest
from predictor.pointers import Pointers
from predictor.publishing import SpoolPublisher
from predictor.settings import PredictorSettings
from predictor.state import LogState, StateFolder
from predictor.supervisor import STATE_DIR

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.25
CROWDED_BYTES = 128 << 10
"""Of predictions that wait: so many are published at once."""
ENDED_SECONDS = 1.0
"""After which the predictions of a worker that has ended are published, however long others may wait."""
AGAIN_SECONDS = 1.0
"""After a failure."""
BEGIN_SECONDS = 5.0
"""For so long publishing waits for the first release."""
ORPHAN_SECONDS = 9.0
"""What an orphan takes to end: its workers may answer for most of it."""


class Following(threading.Thread):
    """Follows the pointers until the process ends.

    Args:
        pointers: to be followed.
        ear: hears hints to look at once.
        poll_seconds: how often they are looked at without one.
    """

    def __init__(self, pointers: Pointers, ear: Ear, poll_seconds: float) -> None:
        super().__init__(name="pointers", daemon=True)
        self._pointers = pointers
        self._ear = ear
        self._poll_seconds = poll_seconds
        self.looked = threading.Event()

    def run(self) -> None:
        """Looks, listens, and looks again."""
        _run_or_end(self._follow)

    def _follow(self) -> None:
        askers: list[str] = []
        while True:
            error = self._look()
            self.looked.set()
            self._ear.answer(askers, error)
            heard = self._ear.wait(self._poll_seconds)
            if heard.verify:
                self._pointers.verify()
            askers = heard.askers()

    def _look(self) -> str:
        """Why it failed, if it did."""
        try:
            self._pointers.refresh()
        except TransientError as error:
            logger.warning("pointers not readable", extra={"error": str(error)})
            return str(error)
        except Exception as error:
            logger.exception("pointers not followed")
            return f"{type(error).__name__}: {error}"
        return ""


class Publishing(threading.Thread):
    """Publishes the spools until it is told to end.

    Args:
        spools: of all workers.
        state: through which workers are told of it.
        flush_seconds: how long a prediction may wait.
        first: what comes before it when the process starts.
    """

    def __init__(
        self, spools: SpoolPublisher, state: StateFolder, flush_seconds: float, first: threading.Event
    ) -> None:
        super().__init__(name="prediction-log", daemon=True)
        self._first = first
        self._spools = spools
        self._state = state
        self._flush_seconds = flush_seconds
        self._told = LogState()
        self._ending = threading.Event()
        self._orphaned = False

    def run(self) -> None:
        """Publishes what has waited long enough, or is much; at the end, everything."""
        _run_or_end(self._publish_all)

    def _publish_all(self) -> None:
        begun = flushed = time.monotonic()
        while not self._ending.wait(0 if self._spools.is_behind else min(TICK_SECONDS, self._flush_seconds)):
            if not self._first.is_set() and time.monotonic() - begun < BEGIN_SECONDS:
                continue
            if self._is_due(time.monotonic() - flushed):
                flushed = time.monotonic()
                self._publish()
        while not self._is_done() or (self._orphaned and self._spools.has_living()):
            time.sleep(TICK_SECONDS / 5)

    def _is_done(self) -> bool:
        """Whether nothing is left, or another keeper is at it."""
        return self._publish() or not (self._spools.is_mine or self._spools.has_ended())

    def end(self, seconds: float, *, orphaned: bool) -> int:
        """Publishes what is left, and what workers that live on still add where it is `orphaned`.

        Returns:
            How many predictions could not be published, unless another keeper is at it.
        """
        self._orphaned = orphaned
        self._ending.set()
        self.join(seconds)
        return self._spools.count_waiting() if self.is_alive() and self._spools.is_mine else 0

    def _is_due(self, waited: float) -> bool:
        try:
            if waited >= self._flush_seconds or self._spools.waiting() >= CROWDED_BYTES:
                return True
            return waited >= ENDED_SECONDS and self._spools.has_ended()
        except OSError:  # publishing meets it too, and says it
            return True

    def _publish(self) -> bool:
        """Whether nothing is left."""
        ending = self._ending.is_set()
        try:
            return self._spools.publish()
        except TransientError as error:
            facts = {"waiting_bytes": self._spools.waiting(), "error": str(error)}
            logger.warning("prediction log waits", extra=facts)
        except Exception:
            logger.exception("prediction log failed")
        finally:
            self._tell()
        if ending:
            time.sleep(AGAIN_SECONDS)
        else:
            self._ending.wait(AGAIN_SECONDS)
        return False

    def _tell(self) -> None:
        with suppress(OSError):  # a full disk, say: it is only told
            if (state := self._spools.state()) != self._told:
                self._state.write_log(state)
                self._told = state


def keep(environ: Mapping[str, str]) -> None:
    """Works until its standard input ends."""
    settings = read_settings(PredictorSettings, environ)
    configure_logging("predictor", settings.log_level, settings.google_cloud_project)
    state = StateFolder(Path(environ[STATE_DIR]))
    bucket = Bucket(settings.bucket, settings.google_cloud_project)
    pointers = Pointers(bucket, settings.cache, state, settings.pinned)
    following = Following(pointers, Ear(state.path), settings.pointer_poll_seconds)
    spools = SpoolPublisher(Publisher(settings.google_cloud_project), settings.spool, settings.spool_bytes)
    publishing = Publishing(spools, state, settings.log_flush_seconds, following.looked)
    following.start()
    publishing.start()
    give_back_at_rest(lambda: (spools.published, spools.lost))
    told = sys.stdin.buffer.read()
    try:
        if pending := publishing.end(float(told or ORPHAN_SECONDS), orphaned=not told):
            facts = {"pending": pending, "spool": str(settings.spool)}
            logger.error("predictions lost at the end, unless the spool outlives the container", extra=facts)
        shutil.rmtree(state.path, ignore_errors=True)
    finally:
        _leave(sys.exc_info()[1])


def _run_or_end(run: Callable[[], None]) -> None:
    """A keeper that lost one of its threads is of no use: where it ends another one is started."""
    try:
        run()
    except BaseException as error:
        _leave(error)


def _leave(error: BaseException | None) -> NoReturn:
    """Ends the process at once: a thread may still wait for Pub/Sub or for the bucket."""
    if error is not None:
        logger.error("keeper failed", exc_info=error)
    sys.stdout.flush()
    os._exit(0 if error is None else 1)
