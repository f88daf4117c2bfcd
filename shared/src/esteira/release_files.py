"""The files of a release: their manifest and their hashes, and how they come from the bucket.

Apart from `esteira.runtime`, so that who only fetches releases loads neither numpy nor ONNX Runtime, and who only runs
them no client of the bucket.
"""

import hashlib
import logging
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from esteira.exceptions import Conflict, ReleaseRefused
from esteira.release import MANIFEST, MODEL, REFERENCE, Release

if TYPE_CHECKING:
    from esteira.bucket import Bucket

logger = logging.getLogger(__name__)

SERVING_FILES_SKIPPED = {"model.skops"}
"""Needed to train on, not to serve."""
_AT_ONCE = 4


def fetch_release(bucket: "Bucket", path: str, manifest_sha256: str, cache: Path) -> Path:
    """Brings a release's serving files into `cache`, whole or not at all, and gives their folder.

    Raises:
        ReleaseRefused: a file is not what the manifest says.
        NotFound: a file is missing in the bucket.
        Unavailable: the bucket does not answer.
    """
    if not re.fullmatch("[0-9a-f]{64}", manifest_sha256):
        raise ReleaseRefused(f"{manifest_sha256!r} is no sha256; write the pointer again")
    folder = cache / manifest_sha256
    if folder.is_dir():
        if (damage := find_damage(folder, manifest_sha256)) is None:
            return folder
        logger.warning("cached release damaged; it is fetched again", extra={"error": damage})
        shutil.rmtree(folder, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    arriving = Path(tempfile.mkdtemp(dir=cache))
    try:
        _download(bucket, path, manifest_sha256, arriving)
        arriving.rename(folder)
    except Conflict as error:
        raise ReleaseRefused(str(error)) from error
    except OSError:
        if not folder.is_dir():  # another process may have been quicker
            raise
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
    return folder


def find_damage(folder: Path, manifest_sha256: str) -> str | None:
    """What is wrong with the serving files of a fetched release; None where they are what the manifest says."""
    try:
        verify_files(folder, read_manifest(folder, manifest_sha256))
    except ReleaseRefused as error:
        return str(error)
    return None


def read_manifest(folder: Path, sha256: str | None) -> Release:
    """The content of release.json.

    Args:
        sha256: of the file, where it is known.

    Raises:
        ReleaseRefused: it is missing, another one, or none.
    """
    path = folder / MANIFEST
    if sha256 is not None:
        verify(path, sha256)
    try:
        release = msgspec.json.decode(path.read_bytes(), type=Release)
    except FileNotFoundError:
        raise ReleaseRefused(f"{folder} holds no {MANIFEST}") from None
    except OSError as error:
        raise ReleaseRefused(f"{folder / MANIFEST} cannot be read: {error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ReleaseRefused(f"{MANIFEST} is not a release's: {error}; release it again") from error
    _check_names(release)
    return release


def verify_files(folder: Path, release: Release) -> None:
    """Raises `ReleaseRefused` unless every serving file is what the manifest says."""
    for name in set(release.files) - SERVING_FILES_SKIPPED:
        verify(folder / name, release.files[name].sha256)


def verify(path: Path, sha256: str) -> None:
    """Raises `ReleaseRefused` unless the file has this hash."""
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise ReleaseRefused(f"the release lacks {path.name}") from None
    except OSError as error:  # a bad disk, say
        raise ReleaseRefused(f"{path.name} cannot be read: {error}") from error
    if found != sha256:
        raise ReleaseRefused(f"{path.name} has sha256 {found}, expected {sha256}; the file was changed or damaged")


def _download(bucket: "Bucket", path: str, manifest_sha256: str, folder: Path) -> None:
    bucket.download(f"{path}{MANIFEST}", folder / MANIFEST, manifest_sha256)
    release = read_manifest(folder, manifest_sha256)

    def bring(name: str) -> None:
        bucket.download(f"{path}{name}", folder / name, release.files[name].sha256)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(bring, sorted(set(release.files) - SERVING_FILES_SKIPPED)))


def _check_names(release: Release) -> None:
    """Every file lies within the release's folder, and every file that serving reads is hashed."""
    for name in release.files:
        path = PurePosixPath(name)
        plain = name == path.as_posix() and "\\" not in name and name not in (".", MANIFEST)
        if path.is_absolute() or ".." in path.parts or not plain:
            raise ReleaseRefused(f"{MANIFEST} names {name!r}, which is no file within its own folder; release it again")
    needed = {MODEL, *release.reference.values(), *([REFERENCE] if release.form.statement is not None else [])}
    unknown = needed - set(release.files)
    if unknown:
        raise ReleaseRefused(f"{MANIFEST} does not list {', '.join(sorted(unknown))} among its files; release it again")
