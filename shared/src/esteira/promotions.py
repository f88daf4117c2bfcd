"""The promotion ledger, and its projection in the bucket.

The newest row decides. Its `share` is 1: its release is the champion. Below 1: a canary or a shadow, in which the
release challenges the champion, which stays. So the champion is always the release of the newest row of share 1.
Promoting, trying out and rolling back each append one row of the next generation: where two race, the primary key lets
one through. The bucket's pointer and MLflow's alias follow the ledger, never lead it; whoever finds one behind repairs
it.
"""

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from esteira.bucket import Bucket
from esteira.events import ModelPromoted
from esteira.exceptions import BadInput, Conflict, NotFound, Problem
from esteira.outbox import enqueue
from esteira.release import Challenger, Pointer, pointer_path
from esteira.tables import promotions, releases

SOURCE = "ledger"


class PromotedRelease(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the ledger, with its release."""

    pipeline: str
    generation: int
    version: str
    path: str
    sha256: str
    dataset_number: int
    metrics: dict[str, float]
    promoted_at: datetime
    share: float
    shadow: bool = False
    """Whether it scores its share without answering."""
    reason: str
    previous_version: str | None
    """Whom a rollback brings back; under a canary or shadow, the champion."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger says, all of one moment."""

    generation: int = 0
    """Of the newest row: what a compare-and-set expects. 0 before the first."""
    champion: PromotedRelease | None = None
    challenger: PromotedRelease | None = None
    """While a canary or a shadow runs."""


def find_standing(session: Session, pipeline: str) -> Standing:
    """Champion, challenger and generation."""
    here = promotions.c.pipeline == pipeline
    newest = select(func.max(promotions.c.generation)).where(here)
    champion = newest.where(promotions.c.share == 1)
    in_force = promotions.c.generation.in_([newest.scalar_subquery(), champion.scalar_subquery()])
    rows = _rows(session, here, in_force)
    if not rows:
        return Standing()
    challenger = rows[0] if rows[0].share < 1 else None
    return Standing(generation=rows[0].generation, champion=rows[-1], challenger=challenger)


def find_champion(session: Session, pipeline: str) -> PromotedRelease | None:
    """The champion, who stays while another release is tried out; None before the first promotion."""
    return find_standing(session, pipeline).champion


def promote(
    session: Session,
    pipeline: str,
    version: str,
    *,
    reason: str,
    by: str,
    expected_generation: int | None = None,
    share: float = 1.0,
    shadow: bool = False,
) -> int:
    """Makes `version` the champion, or with a share below 1 its challenger, and says so in the caller's transaction.

    A promotion ends the canary or shadow that runs, whatever its release; a new one takes the place of that which runs.

    Args:
        expected_generation: the generation of the champion that the release was compared with; 0 for none.
        share: of entities that the release shall answer for.
        shadow: whether it shall score its share without answering.

    Returns:
        The new generation.

    Raises:
        BadInput: the share is not above 0 and at most 1; of a shadow, below 1.
        NotFound: there is no such release.
        Conflict: the ledger went on meanwhile, the release is the champion already, or it has no champion
            to challenge.
    """
    _check_share(share, shadow)
    if not _release_exists(session, pipeline, version):
        raise NotFound(f"pipeline {pipeline} has no release {version}")
    standing = find_standing(session, pipeline)
    _expect(standing, expected_generation)
    champion = standing.champion.version if standing.champion else None
    if champion is None and share < 1:
        raise Conflict(f"pipeline {pipeline} has no champion to challenge; promote release {version} at once")
    if champion == version:
        mend = "try another release out beside it" if share < 1 else "a rollback ends a canary or shadow"
        raise Conflict(f"release {version} is the champion already; {mend}")
    row = {"release_version": version, "previous_version": champion, "share": share, "shadow": shadow}
    new = {**row, "reason": reason, "by": by}
    return _append(session, pipeline, standing.generation + 1, new, champion)


def _check_share(share: float, shadow: bool) -> None:
    if not 0 < share <= 1:
        raise BadInput([Problem("share", f"is {share:g}; a share is above 0 and at most 1")])
    if shadow and share == 1:
        raise BadInput([Problem("share", "is 1, which makes a champion; give a shadow a share below 1, such as 0.99")])


def rollback(
    session: Session, pipeline: str, *, reason: str, by: str, expected_generation: int | None = None
) -> tuple[int, str]:
    """Ends the canary or shadow that runs, or else brings the previous champion back, in the caller's transaction.

    Rolling back again goes back further, to the champion before that one.

    Returns:
        The new generation, and the version that is the champion now.

    Raises:
        NotFound: nothing was promoted yet.
        Conflict: the ledger went on meanwhile, or there is no previous champion.
    """
    standing = find_standing(session, pipeline)
    champion = standing.champion
    if champion is None:
        raise NotFound(f"pipeline {pipeline} has no promotion yet; there is nothing to roll back")
    _expect(standing, expected_generation)
    restored = champion if standing.challenger else _previous(session, champion)
    row = {"release_version": restored.version, "previous_version": restored.previous_version, "share": 1.0}
    new = {**row, "shadow": False, "reason": reason, "by": by}
    return _append(session, pipeline, standing.generation + 1, new, champion.version), restored.version


def _expect(standing: Standing, generation: int | None) -> None:
    if generation not in (None, standing.generation):
        raise Conflict(f"generation {standing.generation} was promoted meanwhile; compare with it and promote again")


def _previous(session: Session, champion: PromotedRelease) -> PromotedRelease:
    """The row by which the previous champion last became one."""
    if champion.previous_version is None:
        raise Conflict(f"release {champion.version} of {champion.pipeline} has no previous champion to go back to")
    c = promotions.c
    was_champion = (c.release_version == champion.previous_version) & (c.share == 1)
    return _rows(session, c.pipeline == champion.pipeline, was_champion)[0]


def _append(session: Session, pipeline: str, generation: int, row: dict[str, Any], previous: str | None) -> int:
    """Adds the row unless that generation is taken, and says so."""
    try:
        with session.begin_nested():
            session.execute(insert(promotions).values(pipeline=pipeline, generation=generation, **row))
    except IntegrityError as error:
        raise Conflict(f"generation {generation} was promoted by someone else; promote again") from error
    promoted = ModelPromoted(
        pipeline=pipeline,
        version=row["release_version"],
        generation=generation,
        previous=previous,
        reason=row["reason"],
        share=row["share"],
        shadow=row["shadow"],
    )
    enqueue(session, promoted, SOURCE)
    return generation


def _rows(session: Session, *conditions: ColumnElement[bool]) -> list[PromotedRelease]:
    """Rows of the ledger, the newest first."""
    p, r = promotions.c, releases.c
    own = (p.pipeline, p.generation, p.release_version.label("version"), p.previous_version, p.reason)
    columns = (
        *own,
        p.share,
        p.shadow,
        p.created_at.label("promoted_at"),
        r.path,
        r.sha256,
        r.dataset_number,
        r.metrics,
    )
    of_release = and_(r.pipeline == p.pipeline, r.version == p.release_version)
    query = select(*columns).join(releases, of_release).where(*conditions).order_by(p.generation.desc())
    return [PromotedRelease(**row) for row in session.execute(query).mappings()]


def _release_exists(session: Session, pipeline: str, version: str) -> bool:
    query = select(releases.c.version).where(releases.c.pipeline == pipeline, releases.c.version == version)
    return session.execute(query).first() is not None


def write_pointer(session: Session, bucket: Bucket, pipeline: str) -> bool:
    """Brings the bucket's pointer up to the ledger; gives whether it was behind.

    Raises:
        Conflict: the pointer was written by someone else at the same time; the next reconcile looks again.
        Unavailable: the bucket does not answer.
    """
    found = bucket.read_versioned(pointer_path(pipeline))  # before the ledger, which is then at least as new
    pointer = _make_pointer(find_standing(session, pipeline))
    if pointer is None or (found and _decode(found[0]) == pointer):
        return False
    bucket.write_if(pointer_path(pipeline), msgspec.json.encode(pointer), found[1] if found else 0)
    return True


def _make_pointer(standing: Standing) -> Pointer | None:
    champion, tried = standing.champion, standing.challenger
    if champion is None:
        return None
    return Pointer(
        pipeline=champion.pipeline,
        generation=standing.generation,
        version=champion.version,
        path=champion.path,
        sha256=champion.sha256,
        promoted_at=champion.promoted_at,
        reason=champion.reason,
        challenger=_challenger(tried) if tried and not tried.shadow else None,
        shadow=_challenger(tried) if tried and tried.shadow else None,
    )


def _challenger(found: PromotedRelease) -> Challenger:
    return Challenger(
        version=found.version, path=found.path, sha256=found.sha256, share=found.share, reason=found.reason
    )


def _decode(pointer: bytes) -> Pointer | None:
    try:
        return msgspec.json.decode(pointer, type=Pointer)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
