"""Follows the pointers in the bucket, brings their releases into the cache, and tells the workers.

A release is fetched whole and verified before anyone hears of it. One that cannot be had is refused: workers keep what
they have, and the reason is told. While the bucket is away it is awaited, and only told of where nothing serves. While
a canary or a shadow runs its challenger is fetched after the champion; whatever becomes of it, the champion serves.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from esteira.bucket import Bucket
from esteira.exceptions import EsteiraError, NotFound, TransientError
from esteira.release import MANIFEST, Pointer, release_path
from esteira.release_files import fetch_release
from predictor.state import Board, Fetched, Notice, Refusal, StateFolder

logger = logging.getLogger(__name__)

POINTERS = "serving/"


class Pointers:
    """The pointers of all pipelines. One thread at a time.

    Args:
        bucket: holds pointers and releases.
        cache: where releases are kept after download.
        state: through which workers are told; what an earlier keeper told there goes on.
        pinned: pipelines that serve one version, whatever their pointers say.
    """

    def __init__(
        self, bucket: Bucket, cache: Path, state: StateFolder, pinned: Mapping[str, str] | None = None
    ) -> None:
        self._bucket = bucket
        self._cache = cache
        self._state = state
        self._pinned = dict(pinned or {})
        self._board = state.read_board()
        self._seen: dict[str, int] = {}

    def refresh(self) -> None:
        """Brings every pipeline up to its pointer; one that fails does not hold up the others.

        Raises:
            Unavailable: the bucket does not answer; what serves goes on serving.
        """
        for pipeline, version in self._pinned.items():
            if pipeline not in self._seen and self._settle(pipeline, version, partial(self._pin, pipeline, version)):
                self._seen[pipeline] = 0
        for found in self._bucket.list(POINTERS):
            pipeline = _pipeline_of(found.path)
            if pipeline and pipeline not in self._pinned and self._seen.get(pipeline) != found.generation:
                self._follow(pipeline, found.path)
        self._write(Board(looked=True, notices=self._board.notices))

    def verify(self) -> None:
        """Looks at every pointer and every fetched release anew with the next `refresh`."""
        self._seen.clear()

    def _follow(self, pipeline: str, path: str) -> None:
        read = self._bucket.read_versioned(path)
        if read is None:
            return
        data, generation = read
        if self._settle(pipeline, _version(data), lambda: msgspec.json.decode(data, type=Pointer)):
            self._seen[pipeline] = generation

    def _pin(self, pipeline: str, version: str) -> Pointer:
        """What a pointer to the version would say.

        Raises:
            NotFound: there is no such release.
        """
        path = release_path(pipeline, version)
        try:
            digest = hashlib.sha256(self._bucket.read(f"{path}{MANIFEST}")).hexdigest()
        except NotFound as error:
            told = f"{error}; let MODEL_RELEASE pin {pipeline} to a release that is there, or to none"
            raise NotFound(told) from error
        return Pointer(
            pipeline=pipeline,
            generation=0,
            version=version,
            path=path,
            sha256=digest,
            promoted_at=datetime.now(UTC),
            reason="pinned by MODEL_RELEASE",
        )

    def _settle(self, pipeline: str, version: str, pointer: Callable[[], Pointer]) -> bool:
        """Brings in what `pointer` gives; whether nothing is to be gained by trying again."""
        try:
            refusal, again = _attempt(pipeline, version, lambda: self._bring_in(pipeline, pointer()))
        except TransientError as error:
            waits = _wait(pipeline, version, error)
            if self._notice(pipeline).champion is None:
                self._tell(pipeline, refused=waits)
            return False
        if refusal is not None:
            if self._notice(pipeline).refused != refusal:
                facts = {"pipeline": pipeline, "version": version, "reason": refusal.reason}
                logger.error("release refused", extra=facts)
            self._tell(pipeline, refused=refusal)
            return not again
        return self._bring_in_challenger(pipeline)

    def _bring_in(self, pipeline: str, pointer: Pointer) -> None:
        champion = self._fetch(pointer.path, pointer.sha256)
        before, wanted = self._notice(pipeline), pointer.tried
        had = before.pointer.tried if before.pointer else None
        kept = before.challenger if wanted and had and wanted.sha256 == had.sha256 else None
        self._tell(pipeline, pointer=pointer, champion=champion, challenger=kept, refused=None)

    def _bring_in_challenger(self, pipeline: str) -> bool:
        """Whether nothing is to be gained by trying again."""
        notice = self._notice(pipeline)
        wanted = notice.pointer.tried if notice.pointer else None
        if wanted is None:
            self._tell(pipeline, challenger=None, refused_challenger=None)
            return True

        def bring() -> None:
            found = self._fetch(wanted.path, wanted.sha256)
            self._tell(pipeline, challenger=found, refused_challenger=None)

        try:
            refusal, again = _attempt(pipeline, wanted.version, bring)
        except TransientError as error:
            waits = _wait(pipeline, wanted.version, error)
            if notice.challenger is None:
                self._tell(pipeline, refused_challenger=waits)
            return False
        if refusal is not None:
            if notice.refused_challenger != refusal:
                facts = {"pipeline": pipeline, "version": wanted.version, "reason": refusal.reason}
                logger.error("challenger refused", extra=facts)
            self._tell(pipeline, challenger=None, refused_challenger=refusal)
        return not again

    def _fetch(self, path: str, sha256: str) -> Fetched:
        folder = fetch_release(self._bucket, path, sha256, self._cache)
        return Fetched(str(folder.absolute()), folder.stat().st_mtime_ns)

    def _notice(self, pipeline: str) -> Notice:
        return self._board.notices.get(pipeline) or Notice()

    def _tell(self, pipeline: str, **changes: Any) -> None:
        notice = msgspec.structs.replace(self._notice(pipeline), **changes)
        self._write(Board(self._board.looked, {**self._board.notices, pipeline: notice}))

    def _write(self, board: Board) -> None:
        if board != self._board:
            self._state.write_board(board)
            self._board = board


def _wait(pipeline: str, version: str, error: TransientError) -> Refusal:
    """No fault of the release: nobody is called for it."""
    logger.warning("release awaited", extra={"pipeline": pipeline, "version": version, "error": str(error)})
    return Refusal(pipeline, version, str(error))


def _attempt(pipeline: str, version: str, bring: Callable[[], None]) -> tuple[Refusal | None, bool]:
    """Why it failed, if it did, and whether another time may do better.

    Raises:
        Unavailable: the bucket does not answer.
    """
    try:
        bring()
    except TransientError:
        raise
    except NotFound as error:
        return Refusal(pipeline, version, str(error)), True
    except (EsteiraError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Refusal(pipeline, version, str(error)), False
    except Exception as error:  # a full disk, say: the other pipelines go on
        logger.exception("release not brought in", extra={"pipeline": pipeline})
        return Refusal(pipeline, version, f"{type(error).__name__}: {error}"), True
    return None, False


def _pipeline_of(pointer: str) -> str:
    """Of the path of a pointer; empty where it is none."""
    return pointer.removeprefix(POINTERS).removesuffix(".json") if pointer.endswith(".json") else ""


def _version(pointer: bytes) -> str:
    try:
        return str(msgspec.json.decode(pointer)["version"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        return "?"
