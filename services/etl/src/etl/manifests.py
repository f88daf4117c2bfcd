"""The next dataset version, from the newest one and a new part."""

import hashlib
from datetime import datetime

import msgspec

from esteira.dataset import Manifest, Part, version_of
from esteira.statement import Statement


def next_manifest(
    previous: Manifest | None, pipeline: str, statement: Statement, part: Part, created_at: datetime
) -> Manifest:
    """Adds `part` to the parts of `previous`, unless those have other features: then they are left out and counted."""
    carried = previous.parts if previous is not None and previous.features == statement.features else []
    parts = [*carried, part]
    manifest = Manifest(
        pipeline=pipeline,
        number=previous.number + 1 if previous else 1,
        version="",
        features=statement.features,
        statement_sha256=hashlib.sha256(statement.sql.encode()).hexdigest(),
        parts=parts,
        rows=sum(part.rows for part in parts),
        labelled=sum(part.labelled for part in parts),
        left_out=_left_out(previous, parts),
        created_at=created_at,
    )
    return msgspec.structs.replace(manifest, version=version_of(manifest))


def _left_out(previous: Manifest | None, parts: list[Part]) -> int:
    if previous is None:
        return 0
    kept = {part.sha256 for part in parts}
    return previous.left_out + sum(part.rows for part in previous.parts if part.sha256 not in kept)
