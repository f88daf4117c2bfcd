"""What releases answered since a canary began, and how well they served: every statement about a canary's arms."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import text
from sqlalchemy.orm import Session

from esteira.events import PredictionsServed
from monitor.canary import Arm
from monitor.measures import Labelled

ARM_ROWS = 100_000
"""The most predictions of an arm that a canary is judged by."""
COUNT_SERVING = text("""
    INSERT INTO servings AS kept (pipeline, model_version, minute, predictions, failures, microseconds)
    VALUES (:pipeline, :version, date_trunc('minute', clock_timestamp()), :predictions, :failures, :microseconds)
    ON CONFLICT (pipeline, model_version, minute) DO UPDATE SET predictions = kept.predictions + excluded.predictions,
        failures = kept.failures + excluded.failures, microseconds = kept.microseconds + excluded.microseconds""")
SERVED_SINCE = text("""
    SELECT coalesce(sum(predictions), 0) AS predictions, coalesce(sum(failures), 0) AS failures,
        coalesce(sum(microseconds) FILTER (WHERE predictions > 0), 0) AS microseconds
    FROM servings WHERE pipeline = :pipeline AND model_version = :version
        AND minute >= date_trunc('minute', CAST(:since AS timestamptz))""")
SCORES_SINCE = text("""
    SELECT score FROM predictions
    WHERE pipeline = :pipeline AND model_version = :version AND entity IS NOT NULL
        AND served_on >= (CAST(:since AS timestamptz) AT TIME ZONE 'UTC')::date AND served_at >= :since
    ORDER BY served_at DESC LIMIT :most""")
LABELLED_SINCE = text("""
    SELECT label, score FROM (
        SELECT DISTINCT ON (p.entity) p.entity, o.label, p.score
        FROM predictions p JOIN outcomes o ON o.pipeline = p.pipeline AND o.entity = p.entity
        WHERE p.pipeline = :pipeline AND p.model_version = :version
            AND p.served_on >= (CAST(:since AS timestamptz) AT TIME ZONE 'UTC')::date AND p.served_at >= :since
        ORDER BY p.entity, p.served_at DESC, p.id
    ) AS newest
    ORDER BY hashtextextended(entity, 0), entity LIMIT :most""")
"""Beyond the limit a sample of entities that their hash draws, so that no key's first letters weigh more."""
FORGET_SERVINGS = text("DELETE FROM servings WHERE minute < clock_timestamp() - CAST(:age AS interval)")


def count_serving(session: Session, event: PredictionsServed) -> None:
    """Counts what a batch says of how its release served."""
    served = {"predictions": len(event.predictions), "failures": event.failures, "microseconds": event.microseconds}
    session.execute(COUNT_SERVING, {"pipeline": event.pipeline, "version": event.model_version, **served})


def forget_servings(session: Session, older_than: timedelta) -> None:
    """Deletes the counts of minutes that no canary reaches back to."""
    session.execute(FORGET_SERVINGS, {"age": older_than})


def read_arm(session: Session, pipeline: str, version: str, since: datetime, most: int = ARM_ROWS) -> Arm:
    """What the release answered since then, to requests that name an entity.

    Of more than `most` predictions the newest; of more than `most` labelled entities a sample drawn by their hash.
    """
    values: dict[str, Any] = {"pipeline": pipeline, "version": version, "since": since, "most": most}
    served = session.execute(SERVED_SINCE, values).one()
    scores = np.fromiter(session.execute(SCORES_SINCE, values).scalars(), dtype=np.float64)
    return Arm(
        version=version,
        scores=scores,
        labelled=_labelled(session, values),
        failures=int(served.failures),
        microseconds=float(served.microseconds / served.predictions) if served.microseconds else None,
    )


def read_microseconds(session: Session, pipeline: str, version: str, since: datetime) -> float | None:
    """The release's mean time for a row that it answered since then; None where none was told."""
    served = session.execute(SERVED_SINCE, {"pipeline": pipeline, "version": version, "since": since}).one()
    return float(served.microseconds / served.predictions) if served.microseconds else None


def _labelled(session: Session, values: dict[str, Any]) -> Labelled:
    """Of an entity predicted twice, the last prediction."""
    rows = session.execute(LABELLED_SINCE, values).all()
    labels = np.array([row.label for row in rows], dtype=np.float64)
    return Labelled(labels, np.array([row.score for row in rows], dtype=np.float64))
