"""What the keeper makes of pointers, over a bucket of a few lines that may be away."""

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from esteira.exceptions import Unavailable
from esteira.release import Challenger, release_path
from predictor.pointers import Pointers
from predictor.state import StateFolder
from releases import BuiltRelease, build_release


class InMemoryBucket:
    """What is written is there; what is below `away` does not answer."""

    def __init__(self) -> None:
        self.away: tuple[str, ...] = ()
        self._objects: dict[str, tuple[bytes, int]] = {}

    def upload_once(self, path: str, data: Path) -> None:
        """Keeps the file's bytes."""
        self._objects[path] = data.read_bytes(), 1

    def write_if(self, path: str, data: bytes, _: int | None) -> None:
        """Writes the next generation, whatever the one before was."""
        self._objects[path] = data, self._objects.get(path, (b"", 0))[1] + 1

    def list(self, prefix: str) -> list[SimpleNamespace]:
        """Paths and generations."""
        found = [(path, self._objects[path][1]) for path in sorted(self._objects) if path.startswith(prefix)]
        return [SimpleNamespace(path=path, generation=generation) for path, generation in found]

    def read_versioned(self, path: str) -> tuple[bytes, int]:
        """Content and generation."""
        return self._objects[path]

    def download(self, path: str, file: Path, _: str) -> None:
        """Writes the bytes to `file`."""
        if path.startswith(self.away):
            raise Unavailable(f"the bucket did not give {path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self._objects[path][0])


class World:
    """A keeper's pointers, and what it tells of the pipeline."""

    def __init__(self, folder: Path) -> None:
        (folder / "state").mkdir()
        self.bucket = InMemoryBucket()
        self.cache = folder / "cache"
        self.state = StateFolder(folder / "state")
        self.pointers = Pointers(self.bucket, self.cache, self.state)  # type: ignore[arg-type]

    def release(self, built: BuiltRelease, challenger: BuiltRelease | None = None) -> None:
        for one in (built, challenger) if challenger else (built,):
            one.upload(self.bucket)  # type: ignore[arg-type]
        pointer = built.pointer()
        if challenger:
            version = challenger.release.version
            path, digest = release_path("shop", version), challenger.sha256
            named = Challenger(version=version, path=path, sha256=digest, share=0.5)
            pointer = msgspec.structs.replace(pointer, challenger=named)
        self.bucket.write_if("serving/shop.json", msgspec.json.encode(pointer), None)

    def told(self) -> tuple[str | None, str | None, str | None]:
        """The version that serves, and why champion or challenger do not."""
        self.pointers.refresh()
        notice = self.state.read_board().notices["shop"]
        refusals = [refusal.reason if refusal else None for refusal in (notice.refused, notice.refused_challenger)]
        return notice.pointer.version if notice.pointer else None, refusals[0], refusals[1]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> BuiltRelease:
    return build_release(tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> BuiltRelease:
    return build_release(tmp_path_factory.mktemp("second"), "v2", seed=2)


def levels(caplog: pytest.LogCaptureFixture) -> set[str]:
    return {record.levelname for record in caplog.records if record.levelno >= logging.WARNING}


def test_while_the_bucket_is_away_what_serves_is_told_and_a_newer_release_awaited(
    world: World, first: BuiltRelease, second: BuiltRelease, caplog: pytest.LogCaptureFixture
) -> None:
    world.release(first)
    assert world.told() == ("v1", None, None)
    world.release(second)
    world.bucket.away = (release_path("shop", "v2"),)
    assert world.told() == ("v1", None, None)
    assert levels(caplog) == {"WARNING"}
    world.bucket.away = ()
    assert world.told() == ("v2", None, None)


def test_where_nothing_serves_it_is_told_that_the_bucket_is_away(
    world: World, first: BuiltRelease, caplog: pytest.LogCaptureFixture
) -> None:
    world.release(first)
    world.bucket.away = ("",)
    version, reason, _ = world.told()
    assert (version, "the bucket did not give" in str(reason), levels(caplog)) == (None, True, {"WARNING"})
    world.bucket.away = ()
    assert world.told() == ("v1", None, None)


def test_a_challenger_is_awaited_while_the_bucket_is_away_and_kept_once_it_serves(
    world: World, first: BuiltRelease, second: BuiltRelease, caplog: pytest.LogCaptureFixture
) -> None:
    world.release(first, second)
    world.bucket.away = (release_path("shop", "v2"),)
    version, refused, reason = world.told()
    assert (version, refused, "the bucket did not give" in str(reason)) == ("v1", None, True)
    assert levels(caplog) == {"WARNING"}
    world.bucket.away = ()
    assert world.told() == ("v1", None, None)
    world.bucket.away = (release_path("shop", "v2"),)
    shutil.rmtree(world.cache / second.sha256)
    world.pointers.verify()
    assert world.told() == ("v1", None, None)
    assert world.state.read_board().notices["shop"].challenger is not None


def test_a_cached_file_that_cannot_be_read_is_fetched_again(world: World, first: BuiltRelease) -> None:
    world.release(first)
    assert world.told() == ("v1", None, None)
    model = world.cache / first.sha256 / "model.onnx"
    wanted = model.read_bytes()
    model.unlink()
    model.mkdir()
    world.pointers.verify()
    assert world.told() == ("v1", None, None)
    assert model.read_bytes() == wanted
