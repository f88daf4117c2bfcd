"""The connections that everything on Cloud Run may open at once, against what the instance allows."""

from typing import Any

from apps import SETTINGS
from cloud_run import load
from esteira.settings import read_settings
from trainer.job import CONNECTIONS

ALLOWED = 100
RESERVED = 3
"""For superusers: `superuser_reserved_connections`."""
REVISIONS = 2
"""While a deploy moves traffic, the old revision and the new one both serve."""
TRAININGS = 5
"""Pipelines that train at the same moment; a pipeline has one training at a time."""
MLFLOW_STORES = 2


def service_connections(service: str) -> int:
    workload = load(service)
    settings: Any = read_settings(SETTINGS[service][0], workload.environ)
    return int(settings.pool_size * int(workload.environ["WEB_CONCURRENCY"]) * workload.max_instances * REVISIONS)


def mlflow_connections() -> int:
    mlflow = load("mlflow")
    names = ("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW")
    size, overflow = (int(mlflow.environ[name]) for name in names)
    assert overflow > 0, "MLflow takes 0 for not set, and SQLAlchemy adds 10 then"
    return (size + overflow) * MLFLOW_STORES * mlflow.max_instances * REVISIONS


def test_all_instances_together_stay_within_what_postgres_allows() -> None:
    needed = sum(map(service_connections, ("etl", "trainer", "monitor")))
    needed += mlflow_connections() + TRAININGS * CONNECTIONS + 1  # and the migrations
    assert needed <= ALLOWED - RESERVED
