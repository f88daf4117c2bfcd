"""What the predictor's environment tells it."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from esteira.settings import ServiceSettings
from predictor.prediction_log import SPOOL_BYTES


class PredictorSettings(ServiceSettings, frozen=True, kw_only=True):
    """The predictor needs the bucket alone; Pub/Sub takes its log."""

    server: Literal["gunicorn", "granian"] = "gunicorn"
    """The HTTP server; read by `predictor.server`, which starts it."""
    pointer_poll_seconds: float = 2.0
    """How often the pointers in the bucket are looked at; `model-promoted` makes it sooner."""
    log_flush_seconds: float = 1.0
    """How long a prediction may wait before it is published."""
    cache_dir: Path | None = None
    """Where releases are kept after download; a temporary folder if not set."""
    spool_dir: Path | None = None
    """Where predictions wait for Pub/Sub, for all workers of this address; a folder below the cache's if not set."""
    spool_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = SPOOL_BYTES
    """How much a worker lets wait before the oldest make room."""
    sample_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05
    """Of predictions, whose raw row is kept for `esteira validate`; 0 keeps none."""
