"""Outcomes that clients report: what became of a row that was predicted."""

import math
from datetime import UTC, datetime
from typing import Any

import msgspec

from esteira.events import Outcome, OutcomesObserved, encode
from esteira.exceptions import BadInput, Problem
from esteira.publisher import Publisher
from esteira.release import Release
from esteira.schema import Row, entity_key, show
from predictor.decoding import MAX_ROWS
from predictor.problems import check_objects, decode_rows, refuse
from predictor.publishing import SOURCE
from predictor.records import check_keys
from predictor.serving import Serving


class FeedbackOutcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of a row: its entity columns, and the label."""

    entity: dict[str, Any]
    label: float | bool
    event_time: datetime | None = None


class FeedbackRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Outcomes of earlier predictions."""

    outcomes: list[FeedbackOutcome]


def give_feedback(serving: Serving, publisher: Publisher, body: bytes) -> int:
    """Publishes outcomes before it answers, so that none is lost; gives their number.

    Args:
        serving: the release whose rows they are of.
        publisher: to Pub/Sub.
        body: the JSON of a `FeedbackRequest`.

    Raises:
        BadInput: it is not that, or an entity does not name the pipeline's entity columns.
        Unavailable: Pub/Sub does not answer.
    """
    release = serving.runtime.release
    request = decode_rows(body, FeedbackRequest, lambda found: _read(release, found))
    outcomes = _read(release, request)
    event = OutcomesObserved(pipeline=release.pipeline, source="feedback", rows=len(outcomes), outcomes=outcomes)
    publisher.publish(encode(event, SOURCE))
    return len(outcomes)


def _read(release: Release, request: FeedbackRequest) -> list[Outcome]:
    by_name = {column.name: column for column in release.columns}
    columns = [by_name[name] for name in release.entity]
    _check_outcomes(release, request.outcomes)
    keys = check_objects(columns, [outcome.entity for outcome in request.outcomes], "outcomes", ".entity")
    check_keys(release, [entity_key(row[name] for name in release.entity) for row in keys], "outcomes")
    return [_outcome(release, row, given) for row, given in zip(keys, request.outcomes, strict=True)]


def _check_outcomes(release: Release, given: list[FeedbackOutcome]) -> None:
    if not 1 <= len(given) <= MAX_ROWS:
        raise BadInput([Problem("outcomes", f"holds {len(given)} outcomes; send 1 to {MAX_ROWS}")])
    allowed = "true, false, 1 or 0" if release.task == "classification" else "a number"
    wrong = [
        Problem(f"outcomes[{position}].label", f"is {show(outcome.label)}; send {allowed}")
        for position, outcome in enumerate(given)
        if (release.task == "classification" and outcome.label not in (0, 1))
        or (release.task == "regression" and (isinstance(outcome.label, bool) or not math.isfinite(outcome.label)))
    ]
    wrong += [
        Problem(f"outcomes[{position}].event_time", f"is {outcome.event_time}; send a time of 1700 to 2199")
        for position, outcome in enumerate(given)
        if outcome.event_time and not 1700 <= outcome.event_time.year < 2200
    ]
    refuse(wrong)


def _outcome(release: Release, row: Row, given: FeedbackOutcome) -> Outcome:
    moment = given.event_time
    if moment is not None and moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return Outcome(entity=entity_key(row[name] for name in release.entity), label=float(given.label), event_time=moment)
