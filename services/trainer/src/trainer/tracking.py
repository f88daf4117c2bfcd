"""MLflow: one tracked run for each attempt at a training, and a registered version for each release.

The only module that imports MLflow, and only when it is first asked, for the import takes seconds. The files of a
release are the artifacts of its registered version, with an `MLmodel` that lets `mlflow.pyfunc.load_model` bring them
to life: see `trainer.pyfunc`.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import msgspec

from esteira.exceptions import Unavailable

logger = logging.getLogger(__name__)

ALIAS = "champion"
RELEASE_FOLDER = "release"
RUN_TAG = "esteira.training_run"
FENCE_TAG = "esteira.fence"
_ALREADY_EXISTS = "RESOURCE_ALREADY_EXISTS"
_DOES_NOT_EXIST = "RESOURCE_DOES_NOT_EXIST"
_MAX_TEXT = 500

P = ParamSpec("P")
R = TypeVar("R")


class OpenRun(msgspec.Struct, frozen=True):
    """A run that MLflow shows as running."""

    id: str
    training_run_id: str
    fence: int


class Tracking:
    """A client of one MLflow server; threads may share it.

    Args:
        uri: the server's address.
        retries: of one request, with growing pauses.
        timeout: seconds for one request.
    """

    def __init__(self, uri: str, retries: int = 4, timeout: int = 20) -> None:
        self._uri = uri
        self._retries = retries
        self._timeout = timeout
        self._lock = threading.Lock()
        self._made: Any = None

    def connect(self) -> None:
        """Imports MLflow and makes the client; the first call of any method does so by itself."""
        self._client()

    def start_run(self, pipeline: str, training_run_id: str, fence: int, tags: Mapping[str, str]) -> str:
        """Gives the id of this attempt's run, made if it is not there; older attempts are ended as killed."""
        with _errors():
            experiment = self._experiment(pipeline)
            found = self._runs_of(experiment, training_run_id)
            for run in found:
                if run.data.tags.get(FENCE_TAG) != str(fence) and run.info.status == "RUNNING":
                    self._client().set_terminated(run.info.run_id, "KILLED")
            mine = [run for run in found if run.data.tags.get(FENCE_TAG) == str(fence)]
            if mine:
                return str(mine[0].info.run_id)
            own = {**tags, RUN_TAG: training_run_id, FENCE_TAG: str(fence)}
            name = f"{tags.get('number', training_run_id)}" + (f".{fence}" if fence > 1 else "")
            return str(self._client().create_run(experiment, tags=own, run_name=name).info.run_id)

    def log(
        self, run_id: str, params: Mapping[str, Any], metrics: Mapping[str, float], tags: Mapping[str, Any]
    ) -> None:
        """Writes parameters, metrics and tags in one request."""
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        with _errors():
            self._client().log_batch(
                run_id,
                metrics=[Metric(name, value, now, 0) for name, value in metrics.items()],
                params=[Param(name, str(value)[:_MAX_TEXT]) for name, value in params.items()],
                tags=[RunTag(name, str(value)[:_MAX_TEXT]) for name, value in tags.items()],
            )

    def log_table(self, run_id: str, table: Mapping[str, Sequence[Any]], file: str) -> None:
        """Writes a table, which MLflow's pages show as such."""
        with _errors():
            self._client().log_table(run_id, {name: list(values) for name, values in table.items()}, file)

    def log_folder(self, run_id: str, folder: Path, into: str | None = None) -> None:
        """Writes all files of a folder, straight to the bucket where artifacts live there."""
        with _errors():
            self._client().log_artifacts(run_id, str(folder), into)

    def end_run(self, run_id: str, status: str) -> None:
        """Ends the run as `FINISHED`, `FAILED` or `KILLED`."""
        with _errors():
            self._client().set_terminated(run_id, status)

    def register(self, pipeline: str, run_id: str, tags: Mapping[str, str]) -> str:
        """Gives the number of the registered version with this `release_version`, made if it is not there."""
        with _errors():
            known = self._versions(pipeline, tags["release_version"])
            if known:
                return known[0]
            self._create_model(pipeline)
            uri = f"{self._client().get_run(run_id).info.artifact_uri}/{RELEASE_FOLDER}"
            made = self._client().create_model_version(pipeline, uri, run_id, dict(tags), await_creation_for=0)
            return str(made.version)

    def set_champion(self, pipeline: str, version: str) -> bool:
        """Points the alias to the version; gives whether it was elsewhere."""
        with _errors():
            if self._champion(pipeline) == version:
                return False
            self._client().set_registered_model_alias(pipeline, ALIAS, version)
            return True

    def open_runs(self, pipelines: Sequence[str], limit: int) -> list[OpenRun]:
        """Runs of these pipelines that MLflow shows as running, oldest first."""
        with _errors():
            found = [self._client().get_experiment_by_name(name) for name in pipelines]
            ids = [experiment.experiment_id for experiment in found if experiment is not None]
            if not ids:
                return []
            running = self._client().search_runs(
                ids, "attributes.status = 'RUNNING'", max_results=limit, order_by=["attributes.start_time"]
            )
        return [
            OpenRun(run.info.run_id, run.data.tags[RUN_TAG], int(run.data.tags[FENCE_TAG]))
            for run in running
            if RUN_TAG in run.data.tags and FENCE_TAG in run.data.tags
        ]

    def _experiment(self, pipeline: str) -> str:
        client = self._client()
        found = client.get_experiment_by_name(pipeline)
        if found is not None:
            return str(found.experiment_id)
        _unless(_ALREADY_EXISTS, client.create_experiment, pipeline)
        return str(client.get_experiment_by_name(pipeline).experiment_id)

    def _runs_of(self, experiment: str, training_run_id: str) -> list[Any]:
        wanted = f"tags.`{RUN_TAG}` = '{training_run_id}'"
        return list(self._client().search_runs([experiment], wanted))

    def _create_model(self, pipeline: str) -> None:
        _unless(_ALREADY_EXISTS, self._client().create_registered_model, pipeline)

    def _versions(self, pipeline: str, release_version: str) -> list[str]:
        wanted = f"name = '{pipeline}' and tags.release_version = '{release_version}'"
        return [str(version.version) for version in self._client().search_model_versions(wanted)]

    def _champion(self, pipeline: str) -> str | None:
        found = _unless(
            (_DOES_NOT_EXIST, "INVALID_PARAMETER_VALUE"), self._client().get_model_version_by_alias, pipeline, ALIAS
        )
        return None if found is None else str(found.version)

    def _client(self) -> Any:
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = os.getpid(), self._make_client()
            return self._made[1]

    def _make_client(self) -> Any:
        from mlflow import MlflowClient
        from mlflow import environment_variables as variables

        settings = {
            variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES: self._retries,
            variables.MLFLOW_HTTP_REQUEST_TIMEOUT: self._timeout,
            variables.MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT: True,
        }
        for variable, value in settings.items():
            variable.set(value)  # type: ignore[no-untyped-call]
        return MlflowClient(self._uri, self._uri)


def installed_requirements() -> str:
    """What is installed here, one `name==version` a line."""
    found = {f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions()}
    return "".join(f"{line}\n" for line in sorted(found, key=str.lower))


def mlmodel(run_id: str) -> str:
    """The `MLmodel` file of a release folder."""
    return (
        f"artifact_path: {RELEASE_FOLDER}\n"
        "flavors:\n"
        "  python_function:\n"
        "    loader_module: trainer.pyfunc\n"
        f"run_id: {run_id}\n"
    )


def _unless(codes: str | tuple[str, ...], action: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R | None:
    """The action's result, or None where MLflow answers with one of `codes`."""
    from mlflow.exceptions import MlflowException

    try:
        return action(*arguments, **named)
    except MlflowException as error:
        if error.error_code not in ((codes,) if isinstance(codes, str) else codes):
            raise
        return None


@contextmanager
def _errors() -> Iterator[None]:
    from google.api_core.exceptions import GoogleAPIError
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        yield
    except (MlflowException, RequestException, GoogleAPIError) as error:
        raise Unavailable(f"MLflow: {str(error).splitlines()[0][:_MAX_TEXT] if str(error) else error!r}") from error
