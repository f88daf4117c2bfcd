"""The data plane: what becomes of a question, in whatever dialect it was asked: check, prepare, score, log."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from esteira.exceptions import BadInput, Problem
from esteira.explanation import Explanation
from esteira.release import Release
from esteira.schema import Column
from esteira.scoring import Array
from predictor.arms import takes_challenger
from predictor.decoding import MAX_ROWS, Body
from predictor.prediction_log import PredictionLog
from predictor.problems import check_objects, decode_rows
from predictor.randomness import draw
from predictor.records import find_entities, make_records, require_finite, tell_failure
from predictor.served import ServedRelease
from predictor.serving import Serving
from predictor.shadow import Asked

logger = logging.getLogger(__name__)

MAX_EXPLAINED = 100
"""Rows of a question that asks for explanations: they cost fifty times what scores do."""
_VALUE_BYTES = 50


class Question(Protocol):
    """Rows that a client wants predictions for."""

    def read(self, served: ServedRelease) -> Body:
        """The values of the question to this release.

        Raises:
            BadInput: names every wrong value by its path, up to `MAX_PROBLEMS`.
        """

    def sent(self) -> Sequence[Any]:
        """The raw rows as the client sent them; asked only where `read` gave rows."""

    def size(self) -> int:
        """About how many bytes it holds."""


class PredictRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Raw rows, or features for clients that hold them already."""

    rows: list[Any] | msgspec.UnsetType = msgspec.UNSET
    features: list[Any] | msgspec.UnsetType = msgspec.UNSET
    explain: bool = False
    """Whether every answer is to say what each feature contributes to its score."""


class JsonQuestion:
    """The body of a request of the native dialect: `PredictRequest`."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self, served: ServedRelease) -> Body:
        """By the release's compiled type, or by the rules, which name what is wrong."""
        return served.decoder.decode(self._body) or self._check(served.release)

    def _check(self, release: Release) -> Body:
        request = decode_rows(self._body, PredictRequest, lambda found: self._read(found, release))
        return self._read(request, release)

    def _read(self, request: PredictRequest, release: Release) -> Body:
        if request.features is msgspec.UNSET and request.rows is not msgspec.UNSET:
            return RowsQuestion(request.rows, "rows", explain=request.explain).check(release)
        if request.rows is msgspec.UNSET and request.features is not msgspec.UNSET:
            return RowsQuestion(request.features, "features", explain=request.explain).check(release)
        raise BadInput([Problem("", "send either `rows` (raw columns) or `features`")])

    def sent(self) -> Sequence[Any]:
        """Decodes again: few requests are sampled."""
        rows: list[Any] = msgspec.json.decode(self._body)["rows"]
        return rows

    def size(self) -> int:
        """That of the body."""
        return len(self._body)


class RowsQuestion:
    """Rows that another dialect brought.

    Args:
        rows: an object of columns each, as JSON gives it.
        kind: whether they are raw rows, or features.
        path: how the dialect names them in problems.
        explain: whether every answer is to say what each feature contributes to its score.
    """

    def __init__(
        self, rows: list[Any], kind: Literal["rows", "features"], path: str | None = None, *, explain: bool = False
    ) -> None:
        self._rows = rows
        self._explain = explain
        self._kind = kind
        self._path = kind if path is None else path

    def read(self, served: ServedRelease) -> Body:
        """By the rules."""
        return self.check(served.release)

    def check(self, release: Release) -> Body:
        """The values of the question, for which the release's schema is all that is needed."""
        if not 1 <= len(self._rows) <= MAX_ROWS:
            raise BadInput([Problem(self._path, f"holds {len(self._rows)} rows; send 1 to {MAX_ROWS}")])
        if self._kind == "rows":
            return Body(_check_rows(release.columns, self._rows, self._path), explain=self._explain)
        return Body(features=_check_rows(_feature_columns(release), self._rows, self._path), explain=self._explain)

    def sent(self) -> Sequence[Any]:
        """The rows themselves."""
        return self._rows

    def size(self) -> int:
        """What its values take in memory, at the least."""
        texts = sum(len(value) for row in self._rows for value in row.values() if isinstance(value, str))
        return texts + _VALUE_BYTES * sum(map(len, self._rows))


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One prediction."""

    prediction_id: str
    """A UUID."""
    score: float
    label: bool | None = None
    """Whether the score reaches the release's threshold; absent for a regression."""
    explanation: Explanation | None = None
    """What each feature contributes to the score before its link; where the question asked for it."""


class PredictAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The predictions, in the order of the rows."""

    pipeline: str
    model_version: str
    predictions: list[Answer]


def predict(serving: Serving, log: PredictionLog, question: Question) -> PredictAnswer:
    """Scores the rows of a question and logs each answer before it is given.

    A challenger's failure is its own: it is logged and counted, and the champion answers. One that runs in the shadow
    gets the question once it is answered.

    Raises:
        BadInput: see `Question.read`.
        PermanentError: the model has no finite score for a row; nothing is answered, nothing logged.
        Unavailable: the pipeline's log is strict, and Pub/Sub does not answer.
    """
    read = question.read(serving.runtime)
    if serving.challenger is None:
        return _answer(serving.runtime, log, read, question)
    if serving.pointer.shadow is not None:
        answer = _answer(serving.runtime, log, read, question)
        _offer_to_shadow(serving, read, question, answer)
        return answer
    challenger = _challenger_for(serving, read)
    if challenger is None:
        return _answer(serving.runtime, log, read, question)
    try:
        return _answer(challenger, log, question.read(challenger), question)
    except Exception as error:
        answer = _answer(serving.runtime, log, read, question)  # where the champion fails too, the request is to blame
        _record_failure(challenger.release, log, len(answer.predictions), error)
        return answer


def sample_rows(
    served: ServedRelease, log: PredictionLog, read: Body, question: Question
) -> Mapping[int, dict[str, Any]]:
    """The raw rows that are kept, by their position."""
    if read.rows is None:
        return {}
    release = served.release
    if not (chosen := log.sampler.choose(release.version, len(read.rows), release.prediction_log.sample)):
        return {}
    sent = question.sent()
    return {position: sent[position] for position in chosen}


def _challenger_for(serving: Serving, read: Body) -> ServedRelease | None:
    """The challenger, where a canary runs and the request is of its share."""
    wanted = serving.pointer.challenger
    if serving.challenger is None or wanted is None or read.rows is None:
        return None
    if read.explain and serving.challenger.explainer is None:
        return None
    if not takes_challenger(wanted.version, serving.runtime.entity(read.rows[0]), wanted.share):
        return None
    return serving.challenger


def _offer_to_shadow(serving: Serving, read: Body, question: Question, answer: PredictAnswer) -> None:
    """The answer is logged and will be given, whatever happens here."""
    challenger, wanted, shadows = serving.challenger, serving.pointer.shadow, serving.shadows
    if challenger is None or wanted is None or shadows is None:
        return
    try:
        first = answer.predictions[0].prediction_id if read.rows is None else serving.runtime.entity(read.rows[0])
        if takes_challenger(wanted.version, first, wanted.share):
            ids = [one.prediction_id for one in answer.predictions]
            shadows.offer(Asked(challenger, question.read, ids, question.size()))
    except Exception:
        logger.exception("shadow not asked", extra={"pipeline": serving.pointer.pipeline})


def _record_failure(release: Release, log: PredictionLog, rows: int, error: Exception) -> None:
    facts = {"pipeline": release.pipeline, "version": release.version, "rows": rows, "error": tell_failure(error)}
    logger.error("challenger failed; the champion answered", extra=facts)
    log.count_failures(release.pipeline, release.version, rows)


def _answer(served: ServedRelease, log: PredictionLog, read: Body, question: Question) -> PredictAnswer:
    release, began = served.release, time.thread_time_ns()
    entities = find_entities(served, read)
    matrix, features = served.encode(read)
    scores: list[float] = served.model.score(matrix).tolist()
    require_finite(release, scores)
    microseconds = (time.thread_time_ns() - began) // 1000
    explanations = _explain(served, matrix) if read.explain else [None] * len(scores)
    ids = _make_ids(len(scores))
    sampled = sample_rows(served, log, read, question)
    logged = make_records(served, read, ids, entities, features, scores, sampled)
    strict = release.prediction_log.delivery == "strict"
    log.add(release.pipeline, release.version, logged, microseconds, strict=strict)
    threshold = release.threshold
    answers = [
        Answer(prediction_id=id_, score=score, label=None if threshold is None else score >= threshold, explanation=why)
        for id_, score, why in zip(ids, scores, explanations, strict=True)
    ]
    return PredictAnswer(pipeline=release.pipeline, model_version=release.version, predictions=answers)


def _explain(served: ServedRelease, matrix: Array) -> Sequence[Explanation]:
    if len(matrix) > MAX_EXPLAINED:
        raise BadInput([Problem("explain", f"is for {MAX_EXPLAINED} rows at most, and {len(matrix)} came")])
    return served.explain_rows(matrix)


def _make_ids(rows: int) -> list[str]:
    """Random UUIDs (RFC 9562, version 4) but for their last three digits, which count the rows of the request."""
    drawn = draw(15).hex()
    first = f"{drawn[:8]}-{drawn[8:12]}-4{drawn[12:15]}-8{drawn[15:18]}-{drawn[18:27]}"
    return [f"{first}{position:03x}" for position in range(rows)]


def _check_rows(columns: Sequence[Column], given: list[Any], name: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in check_objects(columns, given, name)]


def _feature_columns(release: Release) -> list[Column]:
    return [
        Column(name=feature.name, type="number" if feature.kind == "numeric" else "string", nullable=True)
        for feature in release.features
    ]
