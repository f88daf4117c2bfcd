"""Figures in MLflow: the experiment `<pipeline>-monitoring`, one run for each model version, one step for each window.

MLflow may be away: figures wait in `checks`, and the timer writes them later. Writing one twice is no harm, for MLflow
keeps one of equal key, step, time and value. MLflow is imported at first use; it takes seconds.
"""

import logging
import re
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Engine, Row
from sqlalchemy.orm import Session

from esteira.exceptions import Unavailable
from esteira.pipeline import LoadedPipeline
from monitor import repository
from monitor.windows import as_utc, window_index

logger = logging.getLogger(__name__)

MOST = 1000
"""Metrics in one request: MLflow's own limit."""
REST_SECONDS = 15.0
"""How long MLflow is left alone after it failed."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": 5, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": 1}
"""Unless the environment says otherwise: MLflow's own patience is minutes, and the timer calls again in any case."""
TAG = "esteira.model_version"
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_\-. /]")


class Tracker:
    """Writes to MLflow what it lacks."""

    def __init__(self, engine: Engine, pipelines: Mapping[str, LoadedPipeline], tracking_uri: str) -> None:
        self._engine = engine
        self._pipelines = pipelines
        self._uri = tracking_uri
        self._rest_until = 0.0

    def track(self) -> int:
        """Writes figures that are not tracked yet, up to `MOST`; returns how many.

        Raises:
            Unavailable: MLflow or Postgres does not answer; the figures stay to be tracked.
        """
        if time.monotonic() < self._rest_until:
            return 0
        with Session(self._engine) as session, session.begin():
            if not repository.try_lock(session, "monitor/tracking"):
                return 0
            rows = repository.untracked(session, sorted(self._pipelines), MOST)
            for _, group in groupby(rows, key=lambda row: (row.pipeline, row.model_version)):
                self._track_version(list(group))
            repository.mark_tracked(session, rows)
        return len(rows)

    def _track_version(self, rows: Sequence[Row[Any]]) -> None:
        try:
            client = _client(self._uri)
            run_id = _run(client, rows[0].pipeline, rows[0].model_version)
            client.log_batch(run_id, metrics=[self._metric(row) for row in rows])
        except Exception as error:
            self._rest_until = time.monotonic() + REST_SECONDS
            raise Unavailable(f"MLflow at {self._uri}: {type(error).__name__}: {error}") from error

    def _metric(self, row: Row[Any]) -> Any:
        from mlflow.entities import Metric

        start, end = as_utc(row.window_start), as_utc(row.window_end)
        step = window_index(start, self._pipelines[row.pipeline].spec.monitoring.window)
        return Metric(metric_name(row.name, row.subject), row.value, int(end.timestamp() * 1000), step)


def metric_name(name: str, subject: str) -> str:
    """What MLflow takes as a metric's name; a feature's stands below its measure."""
    return _FORBIDDEN.sub("_", f"{name}/{subject}" if subject else name)[:250]


def _client(uri: str) -> Any:
    from mlflow import MlflowClient, environment_variables

    known: Any = environment_variables
    for name, value in PATIENCE.items():
        setting = getattr(known, name)
        if not setting.is_set():
            setting.set(value)
    return MlflowClient(tracking_uri=uri)


def _run(client: Any, pipeline: str, version: str) -> str:
    """The id of the version's run, which is made if there is none."""
    experiment_id = _experiment(client, f"{pipeline}-monitoring")
    found = client.search_runs([experiment_id], filter_string=f"tags.`{TAG}` = '{version}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    tags = {TAG: version, "esteira.pipeline": pipeline}
    return str(client.create_run(experiment_id, tags=tags, run_name=f"{pipeline}-{version}").info.run_id)


def _experiment(client: Any, name: str) -> str:
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(name)
    if known is not None:
        return str(known.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:  # made by another meanwhile
        known = client.get_experiment_by_name(name)
        if known is None:
            raise
        return str(known.experiment_id)
