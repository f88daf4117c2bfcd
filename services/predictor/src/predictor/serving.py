"""Which release serves each pipeline: follows the pointers in the bucket.

A new release is brought in whole, verified and smoke-tested beside the old one, and only then swapped in; requests
under way keep the one they began with. A release that fails is refused: the old one stays, and the reason is shown.
While a canary or a shadow runs, its challenger is brought in beside the champion, and after it; whatever becomes of the
challenger, the champion serves.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from esteira.bucket import Bucket
from esteira.exceptions import EsteiraError, NotFound, ReleaseRefused, TransientError, Unavailable, UnknownPipeline
from esteira.release import MANIFEST, Challenger, Pointer, release_path
from esteira.runtime import fetch_release
from predictor.served import ServedRelease
from predictor.shadow import Shadows

logger = logging.getLogger(__name__)

POINTERS = "serving/"


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


class Refusal(msgspec.Struct, frozen=True):
    """A release that a pointer names and that does not serve."""

    pipeline: str
    version: str
    reason: str


class Servings:
    """All pipelines that this process serves. Threads share it: a swap replaces one reference.

    A replaced release gives its memory back with the last request that uses it: nothing else refers to it.
    """

    def __init__(
        self,
        bucket: Bucket,
        cache: Path,
        poll_seconds: float,
        pinned: Mapping[str, str] | None = None,
        shadows: Shadows | None = None,
    ) -> None:
        """Starts nothing.

        Args:
            bucket: holds pointers and releases.
            cache: where releases are kept after download.
            poll_seconds: how often the pointers are looked at.
            pinned: pipelines that serve one version, whatever their pointers say.
            shadows: take what shadows are to score; without them a pointer's shadow is brought in, and never asked.
        """
        self.shadows = shadows
        self._bucket = bucket
        self._pinned = dict(pinned or {})
        self._cache = cache
        self._poll_seconds = poll_seconds
        self._servings: dict[str, Serving] = {}
        self._refusals: dict[str, Refusal] = {}
        self._refused_challengers: dict[str, Refusal] = {}
        self._seen: dict[str, int] = {}
        self._looked = threading.Event()
        self._wake = threading.Event()

    def start(self) -> None:
        """Starts to follow the pointers, in a thread of its own."""
        threading.Thread(target=self._follow, name="pointers", daemon=True).start()

    def get(self, pipeline: str) -> Serving:
        """The release that serves `pipeline`.

        Raises:
            UnknownPipeline: no release of such a pipeline was promoted.
            Unavailable: one was, and it cannot serve.
        """
        serving = self._servings.get(pipeline)
        if serving is not None:
            return serving
        refusal = self._refusals.get(pipeline)
        if refusal is not None:
            raise Unavailable(f"release {refusal.version}: {refusal.reason}")
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

    def require_ready(self) -> None:
        """Raises `Unavailable` until the pointers were read once and each pipeline they name is served."""
        if not self._looked.is_set():
            raise Unavailable("the pointers in the bucket have not been read yet")
        for name, refusal in self.refusals().items():
            if name not in self._servings:
                raise Unavailable(f"release {refusal.version} of {name} was refused: {refusal.reason}")

    def look_now(self) -> None:
        """Looks at the pointers at once, not at the next poll."""
        self._wake.set()

    def refresh(self) -> None:
        """Brings every pipeline up to its pointer; one that fails does not hold up the others.

        Raises:
            Unavailable: the bucket does not answer; what serves goes on serving.
        """
        for pipeline, version in self._pinned.items():
            if pipeline not in self._servings:
                self._settle(pipeline, version, partial(self._serve_pinned, pipeline, version))
        for found in self._bucket.list(POINTERS):
            pipeline = _pipeline_of(found.path)
            if pipeline and pipeline not in self._pinned and self._seen.get(found.path) != found.generation:
                self._follow_pointer(found.path)
        self._looked.set()

    def _serve_pinned(self, pipeline: str, version: str) -> bool:
        return self.serve(pipeline, self._pin(pipeline, version))

    def _pin(self, pipeline: str, version: str) -> Pointer:
        """What a pointer to the version would say.

        Raises:
            NotFound: there is no such release.
        """
        path = release_path(pipeline, version)
        digest = hashlib.sha256(self._bucket.read(f"{path}{MANIFEST}")).hexdigest()
        return Pointer(
            pipeline=pipeline,
            generation=0,
            version=version,
            path=path,
            sha256=digest,
            promoted_at=datetime.now(UTC),
            reason="pinned by MODEL_RELEASE",
        )

    def _follow(self) -> None:
        while True:
            try:
                self.refresh()
            except TransientError as error:
                logger.warning("pointers not readable", extra={"error": str(error)})
            except Exception:
                logger.exception("pointers not followed")
            self._wake.wait(self._poll_seconds)
            self._wake.clear()

    def _follow_pointer(self, path: str) -> None:
        read = self._bucket.read_versioned(path)
        if read is None:
            return
        data, generation = read
        pipeline = _pipeline_of(path)
        if self._settle(
            pipeline, _version(data), lambda: self.serve(pipeline, msgspec.json.decode(data, type=Pointer))
        ):
            self._seen[path] = generation

    def _settle(self, pipeline: str, version: str, serve: Callable[[], bool]) -> bool:
        """Calls `serve`; whether nothing is to be gained by calling it again. The reason of a failure is kept."""
        try:
            return serve()
        except (TransientError, NotFound) as error:  # looked at again with the next poll
            self._refuse(pipeline, version, str(error))
            return False
        except (EsteiraError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._refuse(pipeline, version, str(error))
            return True
        except Exception as error:  # a full disk, say: the other pipelines go on
            logger.exception("release not brought in", extra={"pipeline": pipeline})
            self._refuse(pipeline, version, f"{type(error).__name__}: {error}")
            return False

    def serve(self, pipeline: str, pointer: Pointer) -> bool:
        """Brings the release that `pointer` names in and puts it into service; then its challenger, if it can.

        Returns:
            False where the challenger may be had at another time.

        Raises:
            ReleaseRefused: it is not what it should be, or not of this pipeline.
            NotFound: a file is missing in the bucket.
            Unavailable: the bucket does not answer.
        """
        loaded = self._loaded(pipeline)
        runtime = loaded.get(pointer.sha256) or self._bring_in(pipeline, pointer.path, pointer.sha256)
        wanted = pointer.tried
        self._put(pipeline, Serving(pointer, runtime, loaded.get(wanted.sha256) if wanted else None, self.shadows))
        self._refusals = {name: refusal for name, refusal in self._refusals.items() if name != pipeline}
        if wanted is None or wanted.sha256 in loaded:
            self._clear_challenger(pipeline)
            return True
        del loaded  # what the pointer no longer names gives its memory back before more is taken
        return self._serve_challenger(pipeline, Serving(pointer, runtime), wanted)

    def _serve_challenger(self, pipeline: str, serving: Serving, wanted: Challenger) -> bool:
        try:
            challenger = self._bring_in(pipeline, wanted.path, wanted.sha256)
        except (TransientError, NotFound) as error:
            self._refuse_challenger(pipeline, wanted.version, str(error))
            return False
        except EsteiraError as error:
            self._refuse_challenger(pipeline, wanted.version, str(error))
            return True
        except Exception as error:  # a full disk, say
            logger.exception("challenger not brought in", extra={"pipeline": pipeline})
            self._refuse_challenger(pipeline, wanted.version, f"{type(error).__name__}: {error}")
            return False
        self._put(pipeline, Serving(serving.pointer, serving.runtime, challenger, self.shadows))
        self._clear_challenger(pipeline)
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

    def _bring_in(self, pipeline: str, path: str, sha256: str) -> ServedRelease:
        runtime = ServedRelease(fetch_release(self._bucket, path, sha256, self._cache), sha256)
        if runtime.release.pipeline != pipeline:
            raise ReleaseRefused(f"it is a release of {runtime.release.pipeline}; promote one of {pipeline}")
        return runtime

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


def _pipeline_of(pointer: str) -> str:
    """Of the path of a pointer; empty where it is none."""
    return pointer.removeprefix(POINTERS).removesuffix(".json") if pointer.endswith(".json") else ""


def _version(pointer: bytes) -> str:
    try:
        return str(msgspec.json.decode(pointer)["version"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        return "?"
