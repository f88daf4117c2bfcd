"""What the predictor does with a request: check, prepare, score, log."""

import logging
import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec

from esteira.events import Outcome, OutcomesObserved, Prediction, encode
from esteira.exceptions import BadInput, PermanentError, Problem
from esteira.publisher import Publisher
from esteira.release import Release
from esteira.schema import MAX_KEY_BYTES, Column, Feature, Row, check_row, entity_key
from esteira.web import decode_json
from predictor.arms import takes_challenger
from predictor.decoding import MAX_ROWS, Body
from predictor.prediction_log import SOURCE, PredictionLog
from predictor.sampling import Sampler
from predictor.served import ServedRelease
from predictor.serving import Serving, Servings

logger = logging.getLogger(__name__)

MAX_PROBLEMS = 100


class PredictRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Raw rows, or features for clients that hold them already."""

    rows: list[Any] | None = None
    features: list[Any] | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One prediction."""

    prediction_id: UUID
    score: float
    label: bool | None = None
    """Whether the score reaches the release's threshold; absent for a regression."""


class PredictAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The predictions, in the order of the rows."""

    pipeline: str
    model_version: str
    predictions: list[Answer]


class FeedbackOutcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of a row: its entity columns, and the label."""

    entity: dict[str, Any]
    label: float | bool
    event_time: datetime | None = None


class FeedbackRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Outcomes of earlier predictions."""

    outcomes: list[FeedbackOutcome]


def predict(serving: Serving, log: PredictionLog, body: bytes) -> PredictAnswer:
    """Scores the rows of a request and logs each answer.

    A challenger's failure is its own: it is logged and counted, and the champion answers.

    Args:
        body: the request's, JSON.

    Raises:
        BadInput: the body is no request, or names every wrong value by its path, up to `MAX_PROBLEMS`.
        PermanentError: the model has no finite score for a row; nothing is answered, nothing logged.
    """
    read = _read(serving.runtime, body)
    challenger = _challenger_for(serving, read)
    if challenger is None:
        return _answer(serving.runtime, log, read, body)
    try:
        return _answer(challenger, log, _read(challenger, body), body)
    except Exception as error:
        answer = _answer(serving.runtime, log, read, body)  # where the champion fails too, the request is to blame
        _record_failure(challenger.release, log, len(answer.predictions), error)
        return answer


def _read(served: ServedRelease, body: bytes) -> Body:
    """The values of a request to the release, by its compiled type, or by the rules, which name what is wrong."""
    return served.decoder.decode(body) or _check_body(served.release, decode_json(body, PredictRequest))


def _check_body(release: Release, request: PredictRequest) -> Body:
    if (request.rows is None) == (request.features is None):
        raise BadInput([Problem("", "send either `rows` (raw columns) or `features`")])
    given = request.rows if request.rows is not None else request.features or []
    if not 1 <= len(given) <= MAX_ROWS:
        name = "rows" if request.rows is not None else "features"
        raise BadInput([Problem(name, f"holds {len(given)} rows; send 1 to {MAX_ROWS}")])
    if request.rows is None:
        return Body(features=_check_features(release.features, given))
    return Body(rows=[tuple(row.values()) for row in _check_rows(release.columns, given, "rows")])


def _challenger_for(serving: Serving, read: Body) -> ServedRelease | None:
    """The challenger, where a canary runs and the request is of its share."""
    wanted = serving.pointer.challenger
    if serving.challenger is None or wanted is None or read.rows is None:
        return None
    if not takes_challenger(wanted.version, serving.runtime.entity(read.rows[0]), wanted.share):
        return None
    return serving.challenger


def _record_failure(release: Release, log: PredictionLog, rows: int, error: Exception) -> None:
    facts = {"pipeline": release.pipeline, "version": release.version, "rows": rows, "error": str(error)}
    logger.error("challenger failed; the champion answered", extra=facts)
    log.count(release.pipeline, release.version, failures=rows)


def _answer(served: ServedRelease, log: PredictionLog, read: Body, body: bytes) -> PredictAnswer:
    release, began = served.release, time.perf_counter_ns()
    entities = _entities(served, read)
    features = served.feature_rows(read.rows) if read.rows is not None else read.features or []
    scores = served.score_rows(features).tolist()
    _require_finite(release, scores)
    log.count(release.pipeline, release.version, microseconds=(time.perf_counter_ns() - began) // 1000)
    predictions = _predictions(served, read, entities, features, scores)
    log.add(release.pipeline, release.version, _with_rows(log.sampler, release, predictions, read, body))
    threshold = release.threshold
    answers = [
        Answer(prediction_id=p.id, score=p.score, label=None if threshold is None else p.score >= threshold)
        for p in predictions
    ]
    return PredictAnswer(pipeline=release.pipeline, model_version=release.version, predictions=answers)


def _require_finite(release: Release, scores: list[float]) -> None:
    """A link such as exp may overflow; JSON has no word for the result, and a client no use."""
    row = next((row for row, score in enumerate(scores) if not math.isfinite(score)), None)
    if row is not None:
        raise PermanentError(f"release {release.version} gives {scores[row]} for row {row}, which is no prediction")


def _entities(served: ServedRelease, read: Body) -> list[str | None]:
    """The entity key of each row; None where features came.

    Raises:
        BadInput: a key is one that etl would refuse in a file, and that Postgres could not index.
    """
    if read.rows is None:
        return [None for _ in read.features or []]
    keys = [served.entity(row) for row in read.rows]
    _check_keys(served.release, keys, "rows")
    return list(keys)


def _check_rows(columns: Sequence[Column], given: list[Any], name: str, inner: str = "") -> list[Row]:
    rows: list[Row] = []
    problems: list[Problem] = []
    for position, row in enumerate(given):
        typed, found = check_row(columns, row, f"{name}[{position}]{inner}")
        rows.append(typed)
        problems += found
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise BadInput(problems[:MAX_PROBLEMS])
    return rows


def _check_keys(release: Release, keys: Sequence[str], name: str) -> None:
    """Refuses keys that etl would refuse in a file, and that Postgres could not index."""
    problems = [
        Problem(f"{name}[{position}]", f"the entity key is longer than {MAX_KEY_BYTES} bytes; shorten {release.entity}")
        for position, key in enumerate(keys)
        if len(key) * 4 > MAX_KEY_BYTES and len(key.encode()) > MAX_KEY_BYTES
    ]
    if problems:
        raise BadInput(problems[:MAX_PROBLEMS])


def _check_features(features: Sequence[Feature], given: list[Any]) -> list[tuple[Any, ...]]:
    columns = [
        Column(name=feature.name, type="number" if feature.kind == "numeric" else "string", nullable=True)
        for feature in features
    ]
    return [tuple(row.values()) for row in _check_rows(columns, given, "features")]


def _predictions(
    served: ServedRelease,
    read: Body,
    entities: list[str | None],
    features: Sequence[Sequence[Any]],
    scores: list[float],
) -> list[Prediction]:
    served_at = datetime.now(UTC)
    moments = [served.event_time(row) for row in read.rows] if read.rows is not None else [None for _ in scores]
    logged: Sequence[Any] = features
    if read.rows is not None:
        logged = [[_loggable(value) for value in values] for values in features]
    return [
        Prediction(
            id=uuid4(),
            entity=entity,
            event_time=moment or served_at,
            served_at=served_at,
            score=score,
            features=values,
        )
        for entity, moment, values, score in zip(entities, moments, logged, scores, strict=True)
    ]


def _with_rows(
    sampler: Sampler, release: Release, predictions: list[Prediction], read: Body, body: bytes
) -> list[Prediction]:
    """Adds the raw row, as it was sent, to those that are sampled; a client that sent features sent none."""
    if read.rows is None:
        return predictions
    taken = [at for at, prediction in enumerate(predictions) if sampler.takes(release.version, prediction.id)]
    if not taken:
        return predictions
    rows, found = msgspec.json.decode(body)["rows"], list(predictions)
    for at in taken:
        found[at] = msgspec.structs.replace(found[at], row=rows[at])
    return found


def _loggable(value: Any) -> float | str | None:
    if value is None or isinstance(value, str):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def give_feedback(serving: Serving, publisher: Publisher, request: FeedbackRequest) -> int:
    """Publishes outcomes before it answers, so that none is lost; gives their number.

    Raises:
        BadInput: an entity does not name the pipeline's entity columns.
        Unavailable: Pub/Sub does not answer.
    """
    release = serving.runtime.release
    by_name = {column.name: column for column in release.columns}
    columns = [by_name[name] for name in release.entity]
    _check_outcomes(release, request.outcomes)
    keys = _check_rows(columns, [outcome.entity for outcome in request.outcomes], "outcomes", ".entity")
    _check_keys(release, [entity_key(row[name] for name in release.entity) for row in keys], "outcomes")
    outcomes = [_outcome(release, row, given) for row, given in zip(keys, request.outcomes, strict=True)]
    event = OutcomesObserved(pipeline=release.pipeline, source="feedback", rows=len(outcomes), outcomes=outcomes)
    publisher.publish(encode(event, SOURCE))
    return len(outcomes)


def _check_outcomes(release: Release, given: list[FeedbackOutcome]) -> None:
    if not 1 <= len(given) <= MAX_ROWS:
        raise BadInput([Problem("outcomes", f"holds {len(given)} outcomes; send 1 to {MAX_ROWS}")])
    allowed = "true, false, 1 or 0" if release.task == "classification" else "a number"
    wrong = [
        Problem(f"outcomes[{position}].label", f"is {outcome.label}; send {allowed}")
        for position, outcome in enumerate(given)
        if (release.task == "classification" and outcome.label not in (0, 1))
        or (release.task == "regression" and isinstance(outcome.label, bool))
    ]
    wrong += [
        Problem(f"outcomes[{position}].event_time", f"is {outcome.event_time}; send a time of 1700 to 2199")
        for position, outcome in enumerate(given)
        if outcome.event_time and not 1700 <= outcome.event_time.year < 2200
    ]
    if wrong:
        raise BadInput(wrong[:MAX_PROBLEMS])


def _outcome(release: Release, row: Row, given: FeedbackOutcome) -> Outcome:
    moment = given.event_time
    if moment is not None and moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return Outcome(entity=entity_key(row[name] for name in release.entity), label=float(given.label), event_time=moment)


def list_pipelines(servings: Servings) -> list[dict[str, Any]]:
    """Every pipeline served here, and those whose release was refused."""
    served = [
        {"pipeline": s.pointer.pipeline, "version": s.pointer.version, "generation": s.pointer.generation}
        for s in servings.all()
    ]
    names = {entry["pipeline"] for entry in served}
    return served + [{"pipeline": name, "refused": r} for name, r in servings.refusals().items() if name not in names]


def describe(servings: Servings, log: PredictionLog, name: str) -> dict[str, Any]:
    """The pipeline's schema, its champion with metrics, and the state of this worker's log."""
    serving = servings.get(name)
    release = serving.runtime.release
    return {
        "pipeline": name,
        "task": release.task,
        "label": release.label,
        "champion": {
            "version": release.version,
            "generation": serving.pointer.generation,
            "promoted_at": serving.pointer.promoted_at,
            "trained_at": release.created_at,
            "learner": release.learner,
            "dataset": release.dataset,
            "metrics": release.metrics,
        },
        "entity": release.entity,
        "event_time": release.event_time,
        "columns": release.columns,
        "features": [{"name": feature.name, "kind": feature.kind} for feature in release.features],
        "example": {"rows": release.example, "scores": release.example_scores},
        "challenger": _describe_challenger(servings, serving),
        "refused": servings.refusals().get(name),
        "log": {"published": log.published, "pending": log.pending, "lost": log.lost},
    }


def _describe_challenger(servings: Servings, serving: Serving) -> dict[str, Any] | None:
    """The release that a canary tries out, and why it does not serve if it does not."""
    wanted = serving.pointer.challenger
    if wanted is None:
        return None
    refused = servings.refused_challenger(serving.pointer.pipeline)
    found = {"version": wanted.version, "share": wanted.share, "serving": serving.challenger is not None}
    return {**found, "refused": refused.reason if refused else None}
