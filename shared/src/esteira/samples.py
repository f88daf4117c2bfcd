"""Recorded requests of production with what was answered: `samples/<pipeline>/<version>.json` in the bucket.

The predictor keeps the raw row of a share of its predictions, the monitor stores them and writes the newest ones here,
and `esteira validate` sends them through changed code.
"""

from typing import Any
from uuid import UUID

import msgspec

SAMPLE_ROWS = 500
"""Most rows in one sample."""


class SampledPrediction(msgspec.Struct, frozen=True, kw_only=True):
    """One request row, and what production answered."""

    id: UUID
    row: dict[str, Any]
    """As the client sent it."""
    features: list[float | str | None]
    """In the order of the release's features, before encoding; None is missing."""
    score: float
    label: bool | None = None
    """None for a regression."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The newest sampled predictions of one release, newest first."""

    pipeline: str
    version: str
    predictions: list[SampledPrediction]


def sample_path(pipeline: str, version: str) -> str:
    """Where the sample of a release lies in the bucket."""
    return f"samples/{pipeline}/{version}.json"
