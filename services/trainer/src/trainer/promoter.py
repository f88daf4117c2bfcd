"""What operators do to the promotion ledger: promote, begin a canary or shadow, roll back, look."""

import logging
from typing import Annotated, Any

import msgspec
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from esteira.outbox import Relay
from esteira.pipeline import LoadedPipeline, find_pipeline
from esteira.promotions import find_standing, promote, rollback
from trainer import repository
from trainer.projections import Projections

logger = logging.getLogger(__name__)

LISTED = 100
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class PromotionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A release to be made champion, or challenger with a share below 1."""

    version: Text
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    shadow: bool = False
    """Whether the challenger scores its share without answering."""
    expected_generation: int | None = None
    """Of the ledger that the caller has seen; None takes any."""
    reason: Text
    by: Text
    """Who wants it; where the caller's token proves an operator, that address is recorded instead."""


class RollbackRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The canary or shadow to be ended, or the previous champion to be brought back."""

    expected_generation: int | None = None
    reason: Text
    by: Text


class Promoter:
    """Appends to the ledger, and carries it at once to where it is looked for."""

    def __init__(
        self, engine: Engine, pipelines: dict[str, LoadedPipeline], relay: Relay, projections: Projections
    ) -> None:
        self._engine = engine
        self._pipelines = pipelines
        self._relay = relay
        self._projections = projections

    def history(self, pipeline: str) -> list[dict[str, Any]]:
        """The newest rows of the ledger first."""
        find_pipeline(self._pipelines, pipeline)
        with Session(self._engine) as session:
            return repository.list_promotions(session, pipeline, LISTED)

    def promote(self, pipeline: str, wanted: PromotionRequest, operator: str | None) -> dict[str, Any]:
        """Promotes a release, or begins its canary or shadow; gives what the ledger says then.

        Raises:
            BadInput: a shadow is to have a share of 1.
            UnknownPipeline, NotFound: there is no such pipeline, or release.
            Conflict: the ledger went on meanwhile, or the release is the champion already.
        """
        find_pipeline(self._pipelines, pipeline)
        by = operator or wanted.by
        with Session(self._engine) as session, session.begin():
            promote(
                session,
                pipeline,
                wanted.version,
                reason=wanted.reason,
                by=by,
                expected_generation=wanted.expected_generation,
                share=wanted.share,
                shadow=wanted.shadow,
            )
            answer = _standing(session, pipeline)
        self._carry(pipeline, {**answer, "by": by, "reason": wanted.reason})
        return answer

    def rollback(self, pipeline: str, wanted: RollbackRequest, operator: str | None) -> dict[str, Any]:
        """Ends the canary or shadow that runs, or else brings the previous champion back; gives the ledger's word then.

        Raises:
            UnknownPipeline, NotFound: there is no such pipeline, or nothing was promoted yet.
            Conflict: the ledger went on meanwhile, or there is no previous champion.
        """
        find_pipeline(self._pipelines, pipeline)
        by, expected = operator or wanted.by, wanted.expected_generation
        with Session(self._engine) as session, session.begin():
            rollback(session, pipeline, reason=wanted.reason, by=by, expected_generation=expected)
            answer = _standing(session, pipeline)
        self._carry(pipeline, {**answer, "by": by, "reason": wanted.reason})
        return answer

    def _carry(self, pipeline: str, facts: dict[str, Any]) -> None:
        """The predictors first; what is out of reach now is reconcile's."""
        logger.warning("ledger changed by an operator", extra=facts)
        self._projections.write_pointer(pipeline)
        self._relay.flush()
        self._projections.set_alias(pipeline)


def _standing(session: Session, pipeline: str) -> dict[str, Any]:
    standing = find_standing(session, pipeline)
    challenger = standing.challenger
    return {
        "pipeline": pipeline,
        "generation": standing.generation,
        "champion": standing.champion.version if standing.champion else None,
        "challenger": challenger.version if challenger else None,
        "share": challenger.share if challenger else 1.0,
        "shadow": challenger is not None and challenger.shadow,
    }
