"""The promotion ledger, and its projection in the bucket.

Champion = the promotion with the highest generation. A promotion is one INSERT of the next generation: where two
race, the primary key lets one through. The bucket's pointer and MLflow's alias follow the ledger, never lead it;
whoever finds one behind repairs it.
"""

from typing import Any

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from esteira.bucket import Bucket
from esteira.events import ModelPromoted
from esteira.exceptions import Conflict, NotFound
from esteira.outbox import enqueue
from esteira.release import Pointer, pointer_path
from esteira.tables import promotions, releases


class Champion(msgspec.Struct, frozen=True, kw_only=True):
    """The promotion in force, with its release."""

    pipeline: str
    generation: int
    version: str
    path: str
    sha256: str
    dataset_number: int
    metrics: dict[str, float]
    promoted_at: Any


def find_champion(session: Session, pipeline: str) -> Champion | None:
    """The newest promotion of the pipeline, or None before the first."""
    query = (
        select(
            promotions.c.pipeline,
            promotions.c.generation,
            promotions.c.release_version.label("version"),
            releases.c.path,
            releases.c.sha256,
            releases.c.dataset_number,
            releases.c.metrics,
            promotions.c.created_at.label("promoted_at"),
        )
        .join(
            releases,
            (releases.c.pipeline == promotions.c.pipeline) & (releases.c.version == promotions.c.release_version),
        )
        .where(promotions.c.pipeline == pipeline)
        .order_by(promotions.c.generation.desc())
        .limit(1)
    )
    row = session.execute(query).mappings().first()
    return Champion(**row) if row else None


def promote(
    session: Session, pipeline: str, version: str, *, reason: str, by: str, expected_generation: int | None = None
) -> int:
    """Makes `version` the champion and says so, in the caller's transaction.

    Args:
        expected_generation: the generation of the champion that the release was compared with; 0 for none.

    Returns:
        The new generation.

    Raises:
        NotFound: there is no such release.
        Conflict: another release was promoted meanwhile.
    """
    if not _release_exists(session, pipeline, version):
        raise NotFound(f"pipeline {pipeline} has no release {version}")
    champion = find_champion(session, pipeline)
    current = champion.generation if champion else 0
    if expected_generation not in (None, current):
        raise Conflict(f"generation {current} was promoted meanwhile; compare with it and promote again")
    previous = champion.version if champion else None
    row = {"pipeline": pipeline, "generation": current + 1, "release_version": version}
    try:
        with session.begin_nested():
            session.execute(insert(promotions).values(**row, previous_version=previous, reason=reason, by=by))
    except IntegrityError as error:
        raise Conflict(f"generation {current + 1} was promoted by someone else; promote again") from error
    promoted = ModelPromoted(
        pipeline=pipeline, version=version, generation=current + 1, previous=previous, reason=reason
    )
    enqueue(session, promoted, by)
    return current + 1


def _release_exists(session: Session, pipeline: str, version: str) -> bool:
    query = select(releases.c.version).where(releases.c.pipeline == pipeline, releases.c.version == version)
    return session.execute(query).first() is not None


def _names(pointer: bytes, champion: Champion) -> bool:
    try:
        found = msgspec.json.decode(pointer, type=Pointer)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return (found.generation, found.version, found.sha256) == (champion.generation, champion.version, champion.sha256)


def write_pointer(session: Session, bucket: Bucket, pipeline: str) -> bool:
    """Brings the bucket's pointer up to the ledger; gives whether it was behind.

    Raises:
        Conflict: the pointer was written by someone else at the same time; the next reconcile looks again.
        Unavailable: the bucket does not answer.
    """
    found = bucket.read_versioned(pointer_path(pipeline))  # before the ledger, which is then at least as new
    champion = find_champion(session, pipeline)
    if champion is None or (found and _names(found[0], champion)):
        return False
    pointer = Pointer(
        pipeline=pipeline,
        generation=champion.generation,
        version=champion.version,
        path=champion.path,
        sha256=champion.sha256,
        promoted_at=champion.promoted_at,
    )
    bucket.write_if(pointer_path(pipeline), msgspec.json.encode(pointer), found[1] if found else 0)
    return True
