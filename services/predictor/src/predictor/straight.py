"""Ordinary requests, answered in native code up to the answer's JSON and what is logged of it.

It answers what `inference.predict` answers, and logs the same, but makes no object of a feature, an answer or a record:
see `esteira_kernel.answers`. It takes only what the rules take beyond doubt, and leaves all else to them: also raw
rows whose features DuckDB alone can make, for these are not always JSON's.
"""

import re
import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from esteira_kernel.answers import RANDOM_BYTES
from esteira_kernel.rows import Rows
from predictor.decoding import MAX_ROWS
from predictor.inference import JsonQuestion, sample_rows
from predictor.native import Native
from predictor.prediction_log import RECORD_BYTES, PredictionLog
from predictor.randomness import draw
from predictor.records import find_entities
from predictor.served import ServedRelease

_FEATURES = re.compile(rb'\s*\{\s*"features"')
_encode_lines = msgspec.json.Encoder().encode_lines


class Context(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is logged of a raw row beside its features and its score."""

    entity: str | None
    event_time: datetime
    row: dict[str, Any] | None = None
    """Where it is sampled."""


def answer(served: ServedRelease, log: PredictionLog, body: bytes) -> bytes | None:
    """The JSON of an `inference.PredictAnswer`; its predictions are on disk when this returns.

    Returns:
        None where `inference.predict` is to answer.

    Raises:
        BadInput: see `inference.JsonQuestion`; only of raw rows.
    """
    native = served.native
    if native is None:
        return None
    began, moment = time.perf_counter_ns(), time.time_ns() // 1000  # a thread's own clock takes longer to ask
    if _FEATURES.match(body):
        rows, contexts = native.reader.read(body, MAX_ROWS), None
    else:
        rows, contexts = _prepare(served, native, log, JsonQuestion(body), moment)
    found = native.answerer.answer(rows, draw(RANDOM_BYTES), moment, contexts) if rows else None
    if found is None or any(len(record) > RECORD_BYTES for _, record in found.records):  # the log cuts such
        return None
    release = served.release
    log.write(release.pipeline, release.version, found.records, (time.perf_counter_ns() - began) // 1000)
    return b'%b,"predictions":%b}' % (native.head, found.answers)


def _prepare(
    served: ServedRelease, native: Native, log: PredictionLog, question: JsonQuestion, moment: int
) -> tuple[Rows | None, bytes]:
    """The features of raw rows, and a `Context` of each as JSON, a line each."""
    if served.single is None:
        return None, b""
    read = question.read(served)
    if read.rows is None or read.explain:
        return None, b""
    entities = find_entities(served, read)
    values = served.feature_json(read.rows)
    rows = native.reader.read_values(values, len(read.rows)) if values else None
    if rows is None:
        return None, b""
    now = datetime.fromtimestamp(moment / 1e6, UTC)
    moments = [served.event_time(row) or now for row in read.rows]
    sampled = sample_rows(served, log, read, question)
    told = [
        Context(entity, happened, sampled.get(position))
        for position, (entity, happened) in enumerate(zip(entities, moments, strict=True))
    ]
    return rows, _encode_lines(told)
