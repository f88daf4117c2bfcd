"""What challengers scored in the champion's shadow: stored apart from what was served, and read beside it.

A shadow's prediction has the id of the answer in whose shadow it was made, so that the two arms are compared on the
same rows.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import text
from sqlalchemy.orm import Session

from esteira.events import Prediction, PredictionsServed
from monitor.arms import ARM_ROWS, read_microseconds
from monitor.canary import Arm
from monitor.measures import Labelled
from monitor.repository import as_columns

STORE = text("""
    INSERT INTO shadow_predictions
        (id, pipeline, model_version, entity, event_time, served_at, score, features)
    SELECT id, :pipeline, :version, entity, event_time, served_at, score, features::jsonb
    FROM unnest(CAST(:ids AS uuid[]), CAST(:entities AS text[]), CAST(:event_times AS timestamptz[]),
        CAST(:served_ats AS timestamptz[]), CAST(:scores AS float8[]), CAST(:features AS text[]))
        AS row (id, entity, event_time, served_at, score, features)
    ORDER BY id
    ON CONFLICT DO NOTHING
    RETURNING id""")
COUNT = text("""
    INSERT INTO shadow_servings AS kept (pipeline, model_version, minute, predictions, failures, microseconds)
    VALUES (:pipeline, :version, date_trunc('minute', clock_timestamp()), :predictions, :failures, :microseconds)
    ON CONFLICT (pipeline, model_version, minute) DO UPDATE SET predictions = kept.predictions + excluded.predictions,
        failures = kept.failures + excluded.failures, microseconds = kept.microseconds + excluded.microseconds""")
SCORED_SINCE = text("""
    SELECT coalesce(sum(failures), 0) AS failures, coalesce(sum(predictions), 0) AS predictions,
        coalesce(sum(microseconds) FILTER (WHERE predictions > 0), 0) AS microseconds
    FROM shadow_servings WHERE pipeline = :pipeline AND model_version = :challenger
        AND minute >= date_trunc('minute', CAST(:since AS timestamptz))""")
SCORES_SINCE = text("""
    SELECT p.score AS champion, s.score AS challenger
    FROM shadow_predictions s JOIN predictions p ON p.id = s.id AND p.pipeline = s.pipeline
    WHERE s.pipeline = :pipeline AND s.model_version = :challenger AND s.served_at >= :since
        AND p.model_version = :champion
        AND p.served_on >= (CAST(:since AS timestamptz) AT TIME ZONE 'UTC')::date - 1
    ORDER BY s.served_at DESC LIMIT :most""")
LABELLED_SINCE = text("""
    SELECT label, champion, challenger FROM (
        SELECT DISTINCT ON (s.entity) s.entity, o.label, p.score AS champion, s.score AS challenger
        FROM shadow_predictions s JOIN predictions p ON p.id = s.id AND p.pipeline = s.pipeline
            JOIN outcomes o ON o.pipeline = s.pipeline AND o.entity = s.entity
        WHERE s.pipeline = :pipeline AND s.model_version = :challenger AND s.served_at >= :since
            AND p.model_version = :champion
            AND p.served_on >= (CAST(:since AS timestamptz) AT TIME ZONE 'UTC')::date - 1
        ORDER BY s.entity, s.served_at DESC, s.id
    ) AS newest
    ORDER BY hashtextextended(entity, 0), entity LIMIT :most""")
"""Beyond the limit a sample of entities that their hash draws, so that no key's first letters weigh more."""
FORGET = (
    text("DELETE FROM shadow_predictions WHERE served_at < clock_timestamp() - CAST(:age AS interval)"),
    text("DELETE FROM shadow_servings WHERE minute < clock_timestamp() - CAST(:age AS interval)"),
)


def store_shadows(session: Session, pipeline: str, version: str, rows: Sequence[Prediction]) -> set[Any]:
    """Stores what is not stored yet, whichever batch brought it; returns the ids of the new ones."""
    return set(session.execute(STORE, as_columns(pipeline, version, rows)).scalars())


def count_shadows(session: Session, event: PredictionsServed) -> None:
    """Counts what a batch says of how its release scored."""
    counts = {"predictions": len(event.predictions), "failures": event.failures, "microseconds": event.microseconds}
    session.execute(COUNT, {"pipeline": event.pipeline, "version": event.model_version, **counts})


def forget_shadows(session: Session, older_than: timedelta) -> None:
    """Deletes what no shadow that runs reaches back to."""
    for statement in FORGET:
        session.execute(statement, {"age": older_than})


def read_arms(
    session: Session, pipeline: str, champion: str, challenger: str, since: datetime, most: int = ARM_ROWS
) -> tuple[Arm, Arm]:
    """What both releases made of the same rows since then: those that the shadow scored, in the same order.

    Of more than `most` rows the newest; of more than `most` labelled entities a sample drawn by their hash.
    """
    values: dict[str, Any] = {"pipeline": pipeline, "champion": champion, "challenger": challenger}
    values |= {"since": since, "most": most}
    scores = _columns(session, SCORES_SINCE, values, 2)
    labels, *labelled = _columns(session, LABELLED_SINCE, values, 3)
    scored = session.execute(SCORED_SINCE, values).one()
    return (
        Arm(
            version=champion,
            scores=scores[0],
            labelled=Labelled(labels, labelled[0]),
            microseconds=read_microseconds(session, pipeline, champion, since),
        ),
        Arm(
            version=challenger,
            scores=scores[1],
            labelled=Labelled(labels, labelled[1]),
            failures=int(scored.failures),
            microseconds=float(scored.microseconds / scored.predictions) if scored.microseconds else None,
        ),
    )


def _columns(session: Session, statement: Any, values: dict[str, Any], width: int) -> Any:
    rows = [tuple(row) for row in session.execute(statement, values)]
    return np.array(rows, dtype=np.float64).reshape(-1, width).T
