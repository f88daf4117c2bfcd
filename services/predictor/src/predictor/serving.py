"""Which release serves each pipeline: follows the pointers in the bucket.

A new release is brought in whole, verified and smoke-tested beside the old one, and only then swapped in; requests
under way keep the one they began with. A release that fails is refused: the old one stays, and the reason is shown.
"""

import logging
import threading
from pathlib import Path

import msgspec

from esteira.bucket import Bucket
from esteira.exceptions import EsteiraError, NotFound, ReleaseRefused, TransientError, Unavailable, UnknownPipeline
from esteira.release import Pointer
from esteira.runtime import ReleaseRuntime, fetch_release

logger = logging.getLogger(__name__)

POINTERS = "serving/"


class Serving(msgspec.Struct, frozen=True):
    """A release in service, and the pointer that named it."""

    pointer: Pointer
    runtime: ReleaseRuntime


class Refusal(msgspec.Struct, frozen=True):
    """A release that a pointer names and that does not serve."""

    pipeline: str
    version: str
    reason: str


class Servings:
    """All pipelines that this process serves. Threads share it: a swap replaces one reference.

    A replaced release gives its memory back with the last request that uses it: nothing else refers to it.
    """

    def __init__(self, bucket: Bucket, cache: Path, poll_seconds: float) -> None:
        self._bucket = bucket
        self._cache = cache
        self._poll_seconds = poll_seconds
        self._servings: dict[str, Serving] = {}
        self._refusals: dict[str, Refusal] = {}
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

    def all(self) -> list[Serving]:
        """Every release in service, by name of the pipeline."""
        servings = self._servings
        return [servings[name] for name in sorted(servings)]

    def refusals(self) -> dict[str, Refusal]:
        """Pointers that could not be followed, by pipeline."""
        return dict(self._refusals)

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
        for found in self._bucket.list(POINTERS):
            if found.path.endswith(".json") and self._seen.get(found.path) != found.generation:
                self._follow_pointer(found.path)
        self._looked.set()

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
        pipeline = path.removeprefix(POINTERS).removesuffix(".json")
        try:
            self.serve(pipeline, msgspec.json.decode(data, type=Pointer))
        except (TransientError, NotFound) as error:  # looked at again with the next poll
            self._refuse(pipeline, _version(data), str(error))
            return
        except (EsteiraError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._refuse(pipeline, _version(data), str(error))
        except Exception as error:  # a full disk, say: the other pipelines go on
            logger.exception("release not brought in", extra={"pipeline": pipeline})
            self._refuse(pipeline, _version(data), f"{type(error).__name__}: {error}")
            return
        self._seen[path] = generation

    def serve(self, pipeline: str, pointer: Pointer) -> None:
        """Brings the release that `pointer` names in and puts it into service.

        Raises:
            ReleaseRefused: it is not what it should be, or not of this pipeline.
            NotFound: a file is missing in the bucket.
            Unavailable: the bucket does not answer.
        """
        current = self._servings.get(pipeline)
        if current is None or current.pointer.sha256 != pointer.sha256:
            folder = fetch_release(self._bucket, pointer.path, pointer.sha256, self._cache)
            runtime = ReleaseRuntime(folder, pointer.sha256)
            if runtime.release.pipeline != pipeline:
                raise ReleaseRefused(f"it is a release of {runtime.release.pipeline}; promote one of {pipeline}")
        else:
            runtime = current.runtime
        self._servings = {**self._servings, pipeline: Serving(pointer, runtime)}
        self._refusals = {name: refusal for name, refusal in self._refusals.items() if name != pipeline}
        facts = {"pipeline": pipeline, "version": pointer.version, "generation": pointer.generation}
        logger.info("release in service", extra=facts)

    def _refuse(self, pipeline: str, version: str, reason: str) -> None:
        if self._refusals.get(pipeline) != (refusal := Refusal(pipeline, version, reason)):
            logger.error("release refused", extra={"pipeline": pipeline, "version": version, "reason": reason})
        self._refusals = {**self._refusals, pipeline: refusal}


def _version(pointer: bytes) -> str:
    try:
        return str(msgspec.json.decode(pointer)["version"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        return "?"
