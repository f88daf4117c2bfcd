"""What is kept of predictions, and the checks that stand before: the same for answers and for shadows."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from esteira.exceptions import BadInput, EsteiraError, PermanentError, Problem
from esteira.release import Release
from esteira.schema import MAX_KEY_BYTES
from predictor.decoding import Body
from predictor.prediction_log import LoggedPrediction
from predictor.problems import refuse
from predictor.served import ServedRelease


def find_entities(served: ServedRelease, read: Body) -> Sequence[str | None]:
    """The entity key of each row; None where features came.

    Raises:
        BadInput: a key is one that etl would refuse in a file, and that Postgres could not index.
    """
    if read.rows is None:
        return [None] * len(read)
    keys = [served.entity(row) for row in read.rows]
    if len(max(keys, key=len)) * 4 > MAX_KEY_BYTES:
        refuse([p for at, key in enumerate(keys) for p in check_key(served.release, key, f"rows[{at}]")])
    return keys


def check_key(release: Release, key: str, path: str) -> list[Problem]:
    """Names a key that etl would refuse in a file, and that Postgres could not index."""
    if len(key.encode()) <= MAX_KEY_BYTES:
        return []
    return [Problem(path, f"the entity key is longer than {MAX_KEY_BYTES} bytes; shorten {release.entity}")]


def require_finite(release: Release, scores: Sequence[float]) -> None:
    """A link such as exp may overflow; JSON has no word for the result, and a client no use.

    Raises:
        PermanentError: names the first row whose score is none.
    """
    row = next((row for row, score in enumerate(scores) if not math.isfinite(score)), None)
    if row is not None:
        raise PermanentError(f"release {release.version} gives {scores[row]} for row {row}, which is no prediction")


def make_records(
    served: ServedRelease,
    read: Body,
    ids: Sequence[str],
    entities: Sequence[str | None],
    features: Sequence[Sequence[Any]],
    scores: Sequence[float],
    sampled: Mapping[int, dict[str, Any]],
) -> list[LoggedPrediction]:
    """The predictions of one request as they are logged.

    Args:
        served: made them.
        read: the request.
        ids: theirs, as are entities, features and scores, in its order.
        entities: see `find_entities`.
        features: not yet encoded.
        scores: finite.
        sampled: the raw rows that are kept, by their position.
    """
    served_at = datetime.now(UTC)
    moments: Sequence[datetime | None] = [None] * len(ids)
    values: Sequence[Sequence[Any]] = features
    if read.rows is not None:
        moments = [served.event_time(row) for row in read.rows]
        values = [_loggable(row) for row in features]
    if served.redactor is not None:
        sampled = served.redactor.redact_rows(ids, sampled, features)
        values = served.redactor.redact_features(ids, values)
    return [
        LoggedPrediction(
            id=id_,
            entity=entity,
            event_time=moment or served_at,
            served_at=served_at,
            score=score,
            features=row,
            row=sampled.get(position),
        )
        for position, (id_, entity, moment, row, score) in enumerate(
            zip(ids, entities, moments, values, scores, strict=True)
        )
    ]


def tell_failure(error: Exception) -> str:
    """What happened, for the service's own log: without the values that a client sent, which other libraries repeat."""
    if isinstance(error, BadInput):
        return f"refuses {', '.join(problem.path for problem in error.problems[:5])}"
    return f"{type(error).__name__}: {error}" if isinstance(error, EsteiraError) else type(error).__name__


def _loggable(row: Sequence[Any]) -> Sequence[float | str | None]:
    return [value if value is None or type(value) is str else _finite(value) for value in row]


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
