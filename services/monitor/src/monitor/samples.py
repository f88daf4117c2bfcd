"""Writes the recorded sample of the champion's requests to the bucket, where `esteira validate` finds it."""

import logging
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from esteira.bucket import Bucket
from esteira.exceptions import BadInput, Conflict, Problem
from esteira.samples import SAMPLE_ROWS, Sample, SampledPrediction, sample_path
from monitor import repository
from monitor.profiles import MANIFEST, ReleaseRow

logger = logging.getLogger(__name__)

EVERY = timedelta(minutes=1)


class _Threshold(msgspec.Struct):
    threshold: float | None = None


class SampleWriter:
    """Keeps the sample of each pipeline's champion up to date; threads and instances may do so side by side."""

    def __init__(self, engine: Engine, bucket: Bucket, pipelines: Iterable[str]) -> None:
        self._engine = engine
        self._bucket = bucket
        self._pipelines = sorted(pipelines)
        self._looked: dict[str, float] = {}
        self._thresholds: dict[str, float | None] = {}

    def write(self) -> int:
        """Writes what changed, for each pipeline once a minute at most; gives how many samples were written."""
        return sum(self._write(pipeline) for pipeline in self._pipelines if self._is_due(pipeline))

    def _is_due(self, pipeline: str) -> bool:
        now, looked = time.monotonic(), self._looked.get(pipeline)
        if looked is not None and now - looked < EVERY.total_seconds():
            return False
        self._looked[pipeline] = now
        return True

    def _write(self, pipeline: str) -> bool:
        with Session(self._engine) as session:
            release = repository.find_champion(session, pipeline)
            if release is None:
                return False
            found = repository.sampled_predictions(session, pipeline, release.version, SAMPLE_ROWS)
        if not found:
            return False
        threshold = self._threshold(release)
        predictions = [
            SampledPrediction(
                id=id_,
                row=row,
                features=features,
                score=score,
                label=None if threshold is None else score >= threshold,
            )
            for id_, row, features, score in found
        ]
        return self._put(Sample(pipeline=pipeline, version=release.version, predictions=predictions))

    def _put(self, sample: Sample) -> bool:
        path, data = sample_path(sample.pipeline, sample.version), msgspec.json.encode(sample)
        written = next((found for found in self._bucket.list(path) if found.path == path), None)
        if written is not None and datetime.now(UTC) - written.updated < EVERY:
            return False
        kept = self._bucket.read_versioned(path)
        if kept is not None and kept[0] == data:
            return False
        try:
            self._bucket.write_if(path, data, kept[1] if kept else 0)
        except Conflict:  # another instance was first, with rows as new as these
            return False
        facts = {"pipeline": sample.pipeline, "model_version": sample.version, "rows": len(sample.predictions)}
        logger.info("sample written", extra=facts)
        return True

    def _threshold(self, release: ReleaseRow) -> float | None:
        """The score from which the label is true, as the release says; read once for each."""
        if release.sha256 not in self._thresholds:
            path = f"{release.path}{MANIFEST}"
            try:
                manifest = msgspec.json.decode(self._bucket.read(path, release.sha256), type=_Threshold)
            except msgspec.MsgspecError as error:
                raise BadInput([Problem(path, f"is no release: {error}")]) from error
            self._thresholds[release.sha256] = manifest.threshold
        return self._thresholds[release.sha256]
