"""The Python client of the predictor."""

from esteira_cli.client.client import Client, Predictions
from esteira_cli.client.errors import (
    AccessRefused,
    PipelineNotServed,
    PredictorError,
    PredictorRefused,
    PredictorUnavailable,
    RequestTooLarge,
)

__all__ = [
    "AccessRefused",
    "Client",
    "PipelineNotServed",
    "Predictions",
    "PredictorError",
    "PredictorRefused",
    "PredictorUnavailable",
    "RequestTooLarge",
]
