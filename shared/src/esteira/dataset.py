"""A dataset version: the manifest that names its immutable parts.

A manifest lies at `datasets/<pipeline>/manifests/<version>.json`; its version is the hash of what it says. A new file
adds one part, so that it costs itself and not the history.
"""

import hashlib
from datetime import datetime
from uuid import UUID

import msgspec

from esteira.statement import FeatureColumn

ENTITY = "_entity"
EVENT_TIME = "_event_time"
LABEL = "_label"
LINE = "_line"
_VERSION_DIGITS = 16


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The accepted rows of one file, as Parquet.

    Columns: `_entity` string, `_event_time` timestamp in UTC (null where the pipeline has none), `_label` double (null
    where unknown), `_line` of the file, then the manifest's features: double where numeric, string where categorical.
    Rows stand in the order of the file.
    """

    path: str
    sha256: str
    rows: int
    labelled: int
    ingestion_id: UUID
    object: str | None = None
    """The raw file in the bucket that its rows came from; None in parts of before this was written down."""
    generation: int | None = None
    """Of that object."""
    first_event_time: datetime | None = None
    last_event_time: datetime | None = None
    sqlite_sha256: str | msgspec.UnsetType = msgspec.UNSET
    """Of the SQLite form of features.sql that gave the same features for each of these rows; unset where none did."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset version."""

    pipeline: str
    number: int
    version: str
    """16 hexadecimal digits, of the content without `version` and `created_at`: see `version_of`."""
    features: list[FeatureColumn]
    statement_sha256: str
    """Of the compiled features.sql that made the newest part."""
    parts: list[Part]
    """Oldest first."""
    rows: int
    labelled: int
    left_out: int = 0
    """Rows of earlier parts that have other features than the newest, and are in no part of this version."""
    created_at: datetime


def version_of(manifest: Manifest) -> str:
    """The version that the manifest's content has, whatever its `version` and `created_at` say."""
    content = msgspec.to_builtins(manifest, str_keys=True)
    said = {name: value for name, value in content.items() if name not in ("version", "created_at")}
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()[:_VERSION_DIGITS]


def manifest_path(pipeline: str, version: str) -> str:
    """Where the manifest of a dataset version lies in the bucket."""
    return f"datasets/{pipeline}/manifests/{version}.json"


def part_path(pipeline: str, sha256: str) -> str:
    """Where a part lies in the bucket, by its content."""
    return f"datasets/{pipeline}/parts/{sha256}.parquet"


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of the manifest's object."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1)


def decode_manifest(data: bytes) -> Manifest:
    """Reads the bytes of a manifest's object.

    Raises:
        msgspec.ValidationError: they are no manifest's.
    """
    return msgspec.json.decode(data, type=Manifest)
