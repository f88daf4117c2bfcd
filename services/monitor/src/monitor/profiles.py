"""Release profiles from the bucket, kept in memory: a release never changes."""

import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np

from esteira.bucket import Bucket
from esteira.events import Prediction
from esteira.exceptions import BadInput, Conflict, NotFound, Problem, Unavailable
from esteira.profile import Binning, Indices, Profile
from esteira.redaction import NOTHING, Redaction
from monitor.measures import SCORE
from monitor.windows import window_start

PROFILE = "profile.json"
MANIFEST = "release.json"

Cell = tuple[datetime, int, int]
"""Hour, feature position (-1 is the score), bin."""


class _File(msgspec.Struct):
    sha256: str


class _Manifest(msgspec.Struct):
    files: dict[str, _File]
    redaction: Redaction = NOTHING


class ReleaseRow(msgspec.Struct, frozen=True, kw_only=True):
    """What Postgres knows of a release."""

    version: str
    path: str
    sha256: str
    dataset_number: int
    mlflow_run_id: str | None
    metrics: dict[str, float]


class ProfileStore:
    """Reads each release's profile, and what it withholds from the log, once. Threads may share it."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[Profile, Redaction]] = {}

    def read(self, release: ReleaseRow) -> Profile:
        """The profile of the release, verified against its manifest.

        Raises:
            Unavailable: the bucket does not answer, or does not (yet) hold what the ledger names.
        """
        return self._read(release)[0]

    def read_redaction(self, release: ReleaseRow) -> Redaction:
        """What the release withholds from the log.

        Raises:
            Unavailable: as `read`.
        """
        return self._read(release)[1]

    def _read(self, release: ReleaseRow) -> tuple[Profile, Redaction]:
        with self._lock:
            kept = self._kept.get(release.sha256)
        if kept is None:
            kept = self._load(release)
            with self._lock:
                self._kept[release.sha256] = kept
        return kept

    def _load(self, release: ReleaseRow) -> tuple[Profile, Redaction]:
        try:
            manifest = msgspec.json.decode(
                self._bucket.read(f"{release.path}{MANIFEST}", release.sha256), type=_Manifest
            )
            content = self._bucket.read(f"{release.path}{PROFILE}", manifest.files[PROFILE].sha256)
            return msgspec.json.decode(content, type=Profile), manifest.redaction
        except (NotFound, Conflict, KeyError, msgspec.MsgspecError) as error:
            raise Unavailable(f"the profile of release {release.version} cannot be read: {error}") from error


def count_cells(profile: Profile, predictions: Sequence[Prediction], redaction: Redaction = NOTHING) -> dict[Cell, int]:
    """Counts predictions into the profile's bins, by hour of event time, in the order of the cells.

    What the release withholds is counted nowhere, for it is not missing.

    Raises:
        BadInput: a prediction's features are not those of the profile.
    """
    if not predictions:
        return {}
    hours = [window_start(prediction.event_time, "hour") for prediction in predictions]
    distinct = sorted(set(hours))
    codes = {hour: code for code, hour in enumerate(distinct)}
    rows = np.array([codes[hour] for hour in hours], dtype=np.int64)
    found: dict[Cell, int] = {}
    for position, binning, chosen, values in _columns(profile, predictions, redaction):
        cells, counts = np.unique(rows[chosen] * binning.bins + _indices(binning, values), return_counts=True)
        for cell, count in zip(cells.tolist(), counts.tolist(), strict=True):
            found[distinct[cell // binning.bins], position, cell % binning.bins] = count
    return dict(sorted(found.items()))


def _columns(
    profile: Profile, predictions: Sequence[Prediction], redaction: Redaction
) -> Iterator[tuple[int, Binning, list[int], Sequence[Any]]]:
    """Position and binning of each feature, and which of the predictions say what of it."""
    for prediction in predictions:
        if len(prediction.features) != len(profile.features):
            what = f"has {len(prediction.features)} features, the release has {len(profile.features)}"
            raise BadInput([Problem(f"prediction {prediction.id}", what)])
    every = list(range(len(predictions)))
    yield SCORE, profile.score, every, [prediction.score for prediction in predictions]
    for position, binning in enumerate(profile.features):
        rule = redaction.features.get(binning.name)
        chosen = every if rule is None else [at for at in every if rule.is_clear(predictions[at].id)]
        if chosen:
            yield position, binning, chosen, [predictions[at].features[position] for at in chosen]


def _indices(binning: Binning, values: Sequence[Any]) -> Indices:
    try:
        return binning.indices(values)
    except (TypeError, ValueError) as error:
        raise BadInput([Problem(f"feature {binning.name}", f"has a value that is not {binning.kind}")]) from error
