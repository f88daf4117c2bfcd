"""Outcomes that clients report: what became of a row that was predicted."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from esteira.events import Outcome, OutcomesObserved, encode
from esteira.exceptions import BadInput, Problem
from esteira.publisher import Publisher
from esteira.release import Release
from esteira.schema import EXPECTED, Column, Refused, check_row, check_value, entity_key, show
from predictor.decoding import MAX_ROWS
from predictor.problems import decode_rows, refuse
from predictor.publishing import SOURCE
from predictor.records import check_key
from predictor.serving import Serving

MEMBERS = ("entity", "label", "event_time")
"""Of an outcome: the row's entity columns, what became of it, and its time where that is known."""


class FeedbackRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Outcomes of earlier predictions, each an object of `MEMBERS`."""

    outcomes: list[Any]


def give_feedback(serving: Serving, publisher: Publisher, body: bytes) -> int:
    """Publishes outcomes before it answers, so that none is lost; gives their number.

    Args:
        serving: the release whose rows they are of.
        publisher: to Pub/Sub.
        body: the JSON of a `FeedbackRequest`.

    Raises:
        BadInput: names all that is wrong with it in its order, up to `MAX_PROBLEMS`.
        Unavailable: Pub/Sub does not answer.
    """
    release = serving.runtime.release
    request = decode_rows(body, FeedbackRequest, lambda found: _read(release, found))
    outcomes = _read(release, request)
    event = OutcomesObserved(pipeline=release.pipeline, source="feedback", rows=len(outcomes), outcomes=outcomes)
    publisher.publish(encode(event, SOURCE))
    return len(outcomes)


def _read(release: Release, request: FeedbackRequest) -> list[Outcome]:
    given = request.outcomes
    if not 1 <= len(given) <= MAX_ROWS:
        raise BadInput([Problem("outcomes", f"holds {len(given)} outcomes; send 1 to {MAX_ROWS}")])
    outcomes: list[Outcome] = []
    problems: list[Problem] = []
    for position, one in enumerate(given):
        outcome, found = _read_outcome(release, one, f"outcomes[{position}]")
        outcomes.append(outcome)
        problems += found
    refuse(problems)
    return outcomes


def _read_outcome(release: Release, given: Any, path: str) -> tuple[Outcome, list[Problem]]:
    """The outcome, which is of use only without problems, and the problems in the order of `MEMBERS`."""
    label, moment = 0.0, None
    if not isinstance(given, dict):
        told = f"expected an object of {', '.join(MEMBERS)}, got {show(given)}"
        return Outcome(entity="", label=label), [Problem(path, told)]
    key, problems = _read_entity(release, given.get("entity"), f"{path}.entity")
    try:
        label = _read_label(release, given.get("label"))
    except Refused as refused:
        problems.append(Problem(f"{path}.label", str(refused)))
    try:
        moment = _read_time(given.get("event_time"))
    except Refused as refused:
        problems.append(Problem(f"{path}.event_time", str(refused)))
    problems += [Problem(f"{path}.{name}", "unknown; remove it") for name in given if name not in MEMBERS]
    return Outcome(entity=key, label=label, event_time=moment), problems


def _read_entity(release: Release, given: Any, path: str) -> tuple[str, list[Problem]]:
    by_name = {column.name: column for column in release.columns}
    row, problems = check_row([by_name[name] for name in release.entity], given, path)
    if problems:
        return "", problems
    key = entity_key(row[name] for name in release.entity)
    return key, check_key(release, key, path)


def _read_label(release: Release, given: Any) -> float:
    """Of a classification also 1 and 0, as files have them."""
    if release.task == "regression":
        return float(check_value(Column(name="label", type="number"), given))  # type: ignore[arg-type]
    if not isinstance(given, int | float) or given not in (0, 1):
        raise Refused(f"expected true, false, 1 or 0, got {show(given)}")
    return float(given)


def _read_time(given: Any) -> datetime | None:
    """Any time of RFC 3339; one without an offset is in UTC."""
    refused = Refused(f"{EXPECTED['timestamp']}, got {show(given)}")
    try:
        moment: datetime | None = msgspec.convert(given, datetime | None)
    except (msgspec.ValidationError, ValueError):  # half a surrogate pair, say
        raise refused from None
    if moment is None:
        return None
    if not 1700 <= moment.year < 2200:
        raise refused
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
