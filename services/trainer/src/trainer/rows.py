"""Rows of the tables, as the trainer reads and writes them."""

from typing import Any
from uuid import UUID

import msgspec


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A training run that someone wants."""

    pipeline: str
    request_key: str
    """What makes two requests the same work."""
    reason: str
    requested_by: str
    dataset_number: int
    traceparent: str | None = None


class DatasetVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `datasets`."""

    pipeline: str
    number: int
    version: str
    manifest: str
    rows: int
    labelled: int


class TrainingRun(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `training_runs`, as far as the job needs it."""

    id: UUID
    pipeline: str
    number: int
    request_key: str
    reason: str
    requested_by: str
    dataset_number: int
    status: str
    fence: int
    attempts: int
    traceparent: str | None


class WaitingRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has no job."""

    id: UUID
    pipeline: str
    attempts: int
    verdict: str | None


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run is."""

    status: str
    fence: int
    mlflow_run_id: str | None


class NewRelease(msgspec.Struct, frozen=True, kw_only=True):
    """A row for `releases`."""

    pipeline: str
    version: str
    path: str
    sha256: str
    training_run_id: UUID
    dataset_number: int
    mlflow_run_id: str
    metrics: dict[str, float]
    gates: list[Any]


class UnregisteredRelease(msgspec.Struct, frozen=True, kw_only=True):
    """A release that MLflow's registry may not know yet."""

    pipeline: str
    version: str
    sha256: str
    mlflow_run_id: str
