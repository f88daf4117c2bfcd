"""Brings what production serves, and was asked, from the bucket to this machine; writes nothing there."""

from pathlib import Path

import msgspec

from esteira.bucket import Bucket
from esteira.dataset import Manifest, decode_manifest
from esteira.exceptions import BadInput, Conflict, NotFound, Problem
from esteira.release import MANIFEST, STATEMENT, Pointer, Release, pointer_path
from esteira.release_files import fetch_release
from esteira.samples import sample_path

POINTERS = "serving/"


class Production(msgspec.Struct, frozen=True, kw_only=True):
    """A release of one pipeline that serves."""

    pipeline: str
    release: Release
    folder: Path
    """Its serving files."""
    statement: str
    """Its features.sql, as its author wrote it."""
    sample: Path | None
    """Recorded requests, where there are any."""
    challenger: "Production | None" = None
    """While a canary or shadow runs, the release that is tried out."""


class DatasetFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The dataset version that the champion was fitted on."""

    manifest: Manifest
    folder: Path
    """`manifest.json`, and each part as `<sha256>.parquet`."""
    raw: Path
    """The raw file of each part, where it is still there, under the part's sha256."""


def list_production(bucket: Bucket) -> list[str]:
    """The pipelines that have a pointer."""
    paths = [found.path for found in bucket.list(POINTERS)]
    return [path.removeprefix(POINTERS).removesuffix(".json") for path in paths if path.endswith(".json")]


def fetch_production(bucket: Bucket, pipeline: str, work: Path) -> Production | None:
    """Fetches pointer, release and sample; None where nothing was promoted yet.

    Raises:
        BadInput: the pointer is none.
        NotFound: a file of the release is missing.
        ReleaseRefused: the release is damaged, or this code cannot read it.
        Unavailable: the bucket does not answer.
    """
    found = bucket.read_versioned(pointer_path(pipeline))
    if found is None:
        return None
    try:
        pointer = msgspec.json.decode(found[0], type=Pointer)
    except msgspec.MsgspecError as error:
        raise BadInput([Problem(pointer_path(pipeline), f"is no pointer: {error}")]) from error
    champion = _fetch(bucket, pipeline, pointer.path, pointer.sha256, work)
    if (tried := pointer.tried) is None:
        return champion
    challenger = _fetch(bucket, pipeline, tried.path, tried.sha256, work)
    return msgspec.structs.replace(champion, challenger=challenger)


def _fetch(bucket: Bucket, pipeline: str, path: str, sha256: str, work: Path) -> Production:
    folder = fetch_release(bucket, path, sha256, work / "releases")
    release = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Release)
    statement = (folder / STATEMENT).read_text("utf-8") if (folder / STATEMENT).is_file() else ""
    sample = _fetch_sample(bucket, pipeline, release.version, work / f"{pipeline}-{sha256[:12]}-sample.json")
    return Production(pipeline=pipeline, release=release, folder=folder, statement=statement, sample=sample)


def _fetch_sample(bucket: Bucket, pipeline: str, version: str, file: Path) -> Path | None:
    try:
        bucket.download(sample_path(pipeline, version), file)
    except NotFound:
        return None
    return file


def fetch_dataset(bucket: Bucket, production: Production, work: Path) -> DatasetFiles:
    """Fetches manifest and parts of the champion's dataset version, and the raw files that are still there.

    Raises:
        BadInput: the manifest is none.
        Conflict: a part is not what the manifest says.
        NotFound: the manifest or a part is missing.
        Unavailable: the bucket does not answer.
    """
    folder, raw = work / f"{production.pipeline}-dataset", work / f"{production.pipeline}-raw"
    raw.mkdir(parents=True, exist_ok=True)
    path = production.release.dataset.manifest
    bucket.download(path, folder / "manifest.json")
    try:
        manifest = decode_manifest((folder / "manifest.json").read_bytes())
    except msgspec.MsgspecError as error:
        raise BadInput([Problem(path, f"is no manifest of a dataset: {error}")]) from error
    for part in manifest.parts:
        bucket.download(part.path, folder / f"{part.sha256}.parquet", part.sha256)
        if part.object is not None:
            _fetch_raw(bucket, part.object, part.generation, raw / part.sha256)
    return DatasetFiles(manifest=manifest, folder=folder, raw=raw)


def _fetch_raw(bucket: Bucket, name: str, generation: int | None, file: Path) -> None:
    """Raw files are people's own: they may tidy up, or put another file in one's place."""
    try:
        found = bucket.read_versioned(name)
    except Conflict:
        return
    if found is not None and found[1] == generation:
        file.write_bytes(found[0])
