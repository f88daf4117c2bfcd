"""What the dialects are told by the service's settings."""

import msgspec


class DialectOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which pipeline is meant where none is named, and Vertex AI's paths."""

    default_pipeline: str | None = None
    """The pipeline that dialects without a name in the path serve; the only one there is if not set."""
    health_route: str | None = None
    """Vertex AI's path for health."""
    predict_route: str | None = None
    """Vertex AI's path for predictions."""
