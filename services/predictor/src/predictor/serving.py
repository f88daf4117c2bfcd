"""Which release serves each pipeline in this worker: what the keeper fetched, brought to life.

A new release is loaded and smoke-tested beside the old one, and only then swapped in; requests under way keep the one
they began with. A release that fails is refused: the old one stays, and the reason is shown. While a canary or a shadow
runs, its challenger is loaded beside the champion, and after it; whatever becomes of that, the champion serves.
"""

import logging
import os
import threading
import time
from pathlib import Path

import msgspec

from esteira.exceptions import EsteiraError, ReleaseRefused, Unavailable, UnknownPipeline
from esteira.release import Challenger, Pointer
from esteira.release_files import find_damage
from predictor.hints import LOOK, VERIFY, Mouth
from predictor.served import ServedRelease
from predictor.shadow import Shadows
from predictor.state import Fetched, Notice, Refusal, StateFolder

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.05
START_POLL_SECONDS = 0.005
AGAIN_SECONDS = 2.0
"""After which a release is tried again that failed by no fault of its own."""
FETCH_SECONDS = 30.0
"""After which the keeper is asked again to fetch a damaged release anew."""


class Serving(msgspec.Struct, frozen=True):
    """A release in service, the pointer that named it, and the release that is tried out."""

    pointer: Pointer
    runtime: ServedRelease
    challenger: ServedRelease | None = None
    """Answers for its share; where the pointer names it as the shadow, it never answers."""
    shadows: Shadows | None = None
    """Take what a shadow is to score."""

    @property
    def is_strict(self) -> bool:
        """Whether predictions are published before they are answered."""
        return self.runtime.release.prediction_log.delivery == "strict"


class Servings:
    """All pipelines that this process serves. Threads share it: a swap replaces one reference.

    A replaced release gives its memory back with the last request that uses it: nothing else refers to it.
    """

    def __init__(self, state: Path, shadows: Shadows | None = None) -> None:
        """Starts nothing.

        Args:
            state: the folder through which the keeper tells what it fetched.
            shadows: take what shadows are to score; without them a pointer's shadow is brought in, and never asked.
        """
        self.shadows = shadows
        self._state = StateFolder(state)
        self._keeper = Mouth(state)
        self._servings: dict[str, Serving] = {}
        self._refusals: dict[str, Refusal] = {}
        self._refused_challengers: dict[str, Refusal] = {}
        self._followed: dict[str, Notice] = {}
        self._asked_for: dict[str, float] = {}
        self._stamp: tuple[int, int] | None = None
        self._looked = False
        self._applying = threading.Lock()

    def start(self, patience: float = 0.0) -> None:
        """Brings in what the keeper has; then follows it, in a thread of its own.

        Args:
            patience: so many seconds the pointers may take to be read for the first time, before this returns.
        """
        until = time.monotonic() + patience
        self.apply()
        while not self._looked and time.monotonic() < until:
            time.sleep(START_POLL_SECONDS)
            if self._state.stamp() != self._stamp:
                self.apply()
        threading.Thread(target=self._follow, name="releases", daemon=True).start()

    def get(self, pipeline: str) -> Serving:
        """The release that serves `pipeline`.

        Raises:
            UnknownPipeline: no release of such a pipeline was promoted.
            Unavailable: one was, and it cannot serve; or nobody knows yet.
        """
        serving = self._servings.get(pipeline)
        if serving is not None:
            return serving
        refusal = self._refusals.get(pipeline)
        if refusal is not None:
            raise Unavailable(f"release {refusal.version}: {refusal.reason}")
        self.require_looked()
        known = ", ".join(sorted(self._servings)) or "none yet"
        raise UnknownPipeline(f"no release of a pipeline {pipeline!r} was promoted; served here: {known}")

    def find(self, pipeline: str) -> Serving | None:
        """The release that serves `pipeline`, if one does."""
        return self._servings.get(pipeline)

    def all(self) -> list[Serving]:
        """Every release in service, by name of the pipeline."""
        servings = self._servings
        return [servings[name] for name in sorted(servings)]

    def refusals(self) -> dict[str, Refusal]:
        """Pointers that could not be followed, by pipeline."""
        return dict(self._refusals)

    def refused_challenger(self, pipeline: str) -> Refusal | None:
        """Why the pointer's challenger does not serve, if it does not."""
        return self._refused_challengers.get(pipeline)

    def require_looked(self) -> None:
        """Raises `Unavailable` until the pointers were read once: until then nobody knows what was not promoted."""
        if not self._looked:
            raise Unavailable("the pointers in the bucket have not been read yet")

    def require_ready(self) -> None:
        """Raises `Unavailable` until the pointers were read once and each pipeline they name is served.

        Probes tell the message to everybody, so it names no pipeline and no reason.
        """
        self.require_looked()
        if self.refusals().keys() - self._servings.keys():
            raise Unavailable("a release was refused, and none serves its pipeline; GET /pipelines says which and why")

    def look_now(self) -> None:
        """Has the pointers looked at now, not at the next poll."""
        self._keeper.hint(LOOK)

    def refresh(self) -> None:
        """Has the pointers looked at, and brings in what they name, before it returns.

        Raises:
            Unavailable: the bucket does not answer, or the keeper; what serves goes on serving.
        """
        self._keeper.ask(LOOK)
        self.apply()

    def apply(self) -> None:
        """Brings every pipeline up to what the keeper says; one that fails does not hold up the others."""
        with self._applying:
            self._stamp = self._state.stamp()
            board = self._state.read_board()
            for pipeline, notice in board.notices.items():
                if self._followed.get(pipeline) != notice and self._settle(pipeline, notice):
                    self._followed[pipeline] = notice
            self._looked = board.looked

    def _follow(self) -> None:
        tried = time.monotonic()
        while True:
            time.sleep(POLL_SECONDS)
            if self._state.stamp() != self._stamp or time.monotonic() - tried >= AGAIN_SECONDS:
                tried = time.monotonic()
                try:
                    self.apply()
                except Exception:
                    logger.exception("releases not followed")

    def _settle(self, pipeline: str, notice: Notice) -> bool:
        """Whether nothing is to be gained by trying again before the keeper says something else."""
        done = True
        if notice.pointer is not None and notice.champion is not None:
            done = self._serve(pipeline, notice.pointer, notice.champion, notice.challenger)
        if notice.refused is not None:
            self._refusals = {**self._refusals, pipeline: notice.refused}
        if notice.refused_challenger is not None:
            self._refused_challengers = {**self._refused_challengers, pipeline: notice.refused_challenger}
        return done

    def _serve(self, pipeline: str, pointer: Pointer, champion: Fetched, challenger: Fetched | None) -> bool:
        try:
            return self.serve(pipeline, pointer, Path(champion.folder), Path(challenger.folder) if challenger else None)
        except EsteiraError as error:
            if self._is_damaged(Path(champion.folder), pointer.sha256):
                self._refusals = {**self._refusals, pipeline: Refusal(pipeline, pointer.version, str(error))}
                return False
            reason, done = str(error), True
        except Exception as error:  # no memory, say: the other pipelines go on
            logger.exception("release not brought in", extra={"pipeline": pipeline})
            reason, done = f"{type(error).__name__}: {error}", False
        self._refuse(pipeline, pointer.version, reason)
        return done

    def serve(self, pipeline: str, pointer: Pointer, champion: Path, challenger: Path | None = None) -> bool:
        """Puts the release that `pointer` names into service; then its challenger, if it can.

        Args:
            champion: the folder of the release.
            challenger: of the pointer's challenger, if it was fetched.

        Returns:
            False where the challenger may do better at another time.

        Raises:
            ReleaseRefused: it is not what it should be, or not of this pipeline.
        """
        loaded = self._loaded(pipeline)
        runtime = loaded.get(pointer.sha256) or _load(pipeline, champion, pointer.sha256)
        wanted = pointer.tried
        self._put(pipeline, Serving(pointer, runtime, loaded.get(wanted.sha256) if wanted else None, self.shadows))
        self._refusals = {name: refusal for name, refusal in self._refusals.items() if name != pipeline}
        if wanted is None or challenger is None or wanted.sha256 in loaded:
            self._clear_challenger(pipeline)
            return True
        del loaded  # what the pointer no longer names gives its memory back before more is taken
        return self._serve_challenger(pipeline, Serving(pointer, runtime), wanted, challenger)

    def _serve_challenger(self, pipeline: str, serving: Serving, wanted: Challenger, folder: Path) -> bool:
        try:
            challenger = _load(pipeline, folder, wanted.sha256)
        except EsteiraError as error:
            if self._is_damaged(folder, wanted.sha256):
                return False
            self._refuse_challenger(pipeline, wanted.version, str(error))
            return True
        except Exception as error:  # no memory, say
            logger.exception("challenger not brought in", extra={"pipeline": pipeline})
            self._refuse_challenger(pipeline, wanted.version, f"{type(error).__name__}: {error}")
            return False
        self._put(pipeline, Serving(serving.pointer, serving.runtime, challenger, self.shadows))
        self._clear_challenger(pipeline)
        return True

    def _is_damaged(self, folder: Path, sha256: str) -> bool:
        """Whether a release failed because it was damaged since it was fetched; the keeper then fetches it again.

        Where the damage comes back, from a bad disk, say, it is asked to once in a while.
        """
        if (damage := find_damage(folder, sha256)) is None:
            return False
        if time.monotonic() - self._asked_for.get(sha256, float("-inf")) >= FETCH_SECONDS:
            self._asked_for[sha256] = time.monotonic()
            logger.warning("fetched release damaged; it is fetched again", extra={"error": damage})
            self._keeper.hint(VERIFY)
        return True

    def _loaded(self, pipeline: str) -> dict[str, ServedRelease]:
        """The releases of the pipeline that are in memory, by the sha256 that their pointer gave."""
        current = self._servings.get(pipeline)
        if current is None:
            return {}
        found = {current.pointer.sha256: current.runtime}
        if current.challenger is not None and current.pointer.tried is not None:
            found[current.pointer.tried.sha256] = current.challenger
        return found

    def _put(self, pipeline: str, serving: Serving) -> None:
        before = self._servings.get(pipeline)
        self._servings = {**self._servings, pipeline: serving}
        if before != serving:
            pointer, challenger = serving.pointer, serving.challenger
            facts = {"pipeline": pipeline, "version": pointer.version, "generation": pointer.generation}
            tried = {"challenger": challenger.release.version} if challenger else {}
            logger.info("release in service", extra={**facts, **tried, "worker": os.getpid()})

    def _refuse(self, pipeline: str, version: str, reason: str) -> None:
        if self._refusals.get(pipeline) != (refusal := Refusal(pipeline, version, reason)):
            logger.error("release refused", extra={"pipeline": pipeline, "version": version, "reason": reason})
        self._refusals = {**self._refusals, pipeline: refusal}

    def _refuse_challenger(self, pipeline: str, version: str, reason: str) -> None:
        refusal = Refusal(pipeline, version, reason)
        if self._refused_challengers.get(pipeline) != refusal:
            logger.error("challenger refused", extra={"pipeline": pipeline, "version": version, "reason": reason})
        self._refused_challengers = {**self._refused_challengers, pipeline: refusal}

    def _clear_challenger(self, pipeline: str) -> None:
        kept = {name: refusal for name, refusal in self._refused_challengers.items() if name != pipeline}
        self._refused_challengers = kept


def _load(pipeline: str, folder: Path, sha256: str) -> ServedRelease:
    runtime = ServedRelease(folder, sha256)
    if runtime.release.pipeline != pipeline:
        raise ReleaseRefused(f"it is a release of {runtime.release.pipeline}; promote one of {pipeline}")
    return runtime
