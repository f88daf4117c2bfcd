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
from esteira.runtime import ReleaseRuntime
from esteira.schema import MAX_KEY_BYTES, Column, Feature, Row, check_row, entity_key
from predictor.arms import first_entity, takes_challenger
from predictor.prediction_log import SOURCE, PredictionLog
from predictor.sampling import Sampler
from predictor.serving import Serving, Servings

logger = logging.getLogger(__name__)

MAX_ROWS = 1000
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


def predict(serving: Serving, log: PredictionLog, request: PredictRequest) -> PredictAnswer:
    """Scores the rows of the request and logs each answer.

    A challenger's failure is its own: it is logged and counted, and the champion answers.

    Raises:
        BadInput: names every wrong value by its path, up to `MAX_PROBLEMS`.
        PermanentError: the model has no finite score for a row; nothing is answered, nothing logged.
    """
    challenger = _challenger_for(serving, request)
    if challenger is None:
        return _answer(serving.runtime, log, request)
    try:
        return _answer(challenger, log, request)
    except Exception as error:
        answer = _answer(serving.runtime, log, request)  # where the champion fails too, the request is to blame
        _record_failure(challenger.release, log, len(answer.predictions), error)
        return answer


def _challenger_for(serving: Serving, request: PredictRequest) -> ReleaseRuntime | None:
    """The challenger, where a canary runs and the request is of its share."""
    wanted = serving.pointer.challenger
    if serving.challenger is None or wanted is None:
        return None
    entity = first_entity(serving.runtime.release, request.rows)
    if entity is None or not takes_challenger(wanted.version, entity, wanted.share):
        return None
    return serving.challenger


def _record_failure(release: Release, log: PredictionLog, rows: int, error: Exception) -> None:
    facts = {"pipeline": release.pipeline, "version": release.version, "rows": rows, "error": str(error)}
    logger.error("challenger failed; the champion answered", extra=facts)
    log.count(release.pipeline, release.version, failures=rows)


def _answer(runtime: ReleaseRuntime, log: PredictionLog, request: PredictRequest) -> PredictAnswer:
    release, began = runtime.release, time.perf_counter_ns()
    rows, features = _prepare(runtime, request)
    scores = runtime.score(features).tolist()
    _require_finite(release, scores)
    log.count(release.pipeline, release.version, microseconds=(time.perf_counter_ns() - began) // 1000)
    predictions = _predictions(release, rows, features, scores)
    log.add(release.pipeline, release.version, _with_rows(log.sampler, release, predictions, request.rows))
    answers = [
        Answer(
            prediction_id=p.id, score=p.score, label=None if release.threshold is None else p.score >= release.threshold
        )
        for p in predictions
    ]
    return PredictAnswer(pipeline=release.pipeline, model_version=release.version, predictions=answers)


def _require_finite(release: Release, scores: list[float]) -> None:
    """A link such as exp may overflow; JSON has no word for the result, and a client no use."""
    row = next((row for row, score in enumerate(scores) if not math.isfinite(score)), None)
    if row is not None:
        raise PermanentError(f"release {release.version} gives {scores[row]} for row {row}, which is no prediction")


def _prepare(runtime: ReleaseRuntime, request: PredictRequest) -> tuple[list[Row], dict[str, list[Any]]]:
    """The typed raw rows, empty ones where features came, and the columns of features."""
    if (request.rows is None) == (request.features is None):
        raise BadInput([Problem("", "send either `rows` (raw columns) or `features`")])
    given = request.rows if request.rows is not None else request.features or []
    if not 1 <= len(given) <= MAX_ROWS:
        name = "rows" if request.rows is not None else "features"
        raise BadInput([Problem(name, f"holds {len(given)} rows; send 1 to {MAX_ROWS}")])
    if request.rows is None:
        return [{} for _ in given], _check_features(runtime.release.features, given)
    rows = _check_rows(runtime.release.columns, given, "rows")
    _check_keys(runtime.release, rows, "rows")
    return rows, runtime.features(rows)


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


def _check_keys(release: Release, rows: list[Row], name: str) -> None:
    """Refuses keys that etl would refuse in a file, and that Postgres could not index."""
    keys = (entity_key(row[column] for column in release.entity) for row in rows)
    problems = [
        Problem(f"{name}[{position}]", f"the entity key is longer than {MAX_KEY_BYTES} bytes; shorten {release.entity}")
        for position, key in enumerate(keys)
        if len(key.encode()) > MAX_KEY_BYTES
    ]
    if problems:
        raise BadInput(problems[:MAX_PROBLEMS])


def _check_features(features: Sequence[Feature], given: list[Any]) -> dict[str, list[Any]]:
    columns = [
        Column(name=feature.name, type="number" if feature.kind == "numeric" else "string", nullable=True)
        for feature in features
    ]
    rows = _check_rows(columns, given, "features")
    return {feature.name: [row[feature.name] for row in rows] for feature in features}


def _predictions(
    release: Release, rows: list[Row], features: dict[str, list[Any]], scores: list[float]
) -> list[Prediction]:
    served_at = datetime.now(UTC)
    columns = [[_loggable(value) for value in features[feature.name]] for feature in release.features]
    values = zip(*columns, strict=True)
    return [
        Prediction(
            id=uuid4(),
            entity=entity_key(row[name] for name in release.entity) if row else None,
            event_time=_event_time(release, row) or served_at,
            served_at=served_at,
            score=score,
            features=list(logged),
        )
        for row, logged, score in zip(rows, values, scores, strict=True)
    ]


def _with_rows(
    sampler: Sampler, release: Release, predictions: list[Prediction], rows: list[Any] | None
) -> list[Prediction]:
    """Adds the raw row to those that are sampled; a client that sent features sent none."""
    if rows is None:
        return predictions
    return [
        msgspec.structs.replace(prediction, row=row) if sampler.takes(release.version, prediction.id) else prediction
        for prediction, row in zip(predictions, rows, strict=True)
    ]


def _event_time(release: Release, row: Row) -> datetime | None:
    value = row.get(release.event_time) if release.event_time else None
    return value if isinstance(value, datetime) else None


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
    _check_keys(release, keys, "outcomes")
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
