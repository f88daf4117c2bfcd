"""How a training job comes to life: outside of the service, which answers requests meanwhile."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from esteira.exceptions import SettingsInvalid, Unavailable

if TYPE_CHECKING:
    from google.cloud.run_v2 import JobsClient

logger = logging.getLogger(__name__)

RUN_TIMEOUT_S = 20.0


class Launcher(Protocol):
    """Starts jobs; whether one lives on is told by the lease of its run alone."""

    def launch(self, run_id: UUID, fence: int) -> None:
        """Starts the job of a run and does not wait for it.

        Raises:
            Unavailable: it cannot be started now.
            SettingsInvalid: it cannot be started until somebody mends what the message names.
        """


class SubprocessLauncher:
    """Starts a job as a process of this machine, in a session of its own: it outlives a restart of the service.

    Args:
        environ: what the job's settings are read from.
        threads: for scikit-learn; 0 takes one for each processor.
    """

    def __init__(self, environ: Mapping[str, str], threads: int = 0) -> None:
        count = str(threads or os.cpu_count() or 1)
        # Waiting threads sleep: where they spin, jobs and services on one machine bring each other to a halt.
        self._environ = {**environ, "OMP_NUM_THREADS": count, "OMP_WAIT_POLICY": "PASSIVE"}

    def launch(self, run_id: UUID, fence: int) -> None:
        """Starts `python -m trainer.job`; its log lines go where the service's go."""
        command = [sys.executable, "-m", "trainer.job", "--run", str(run_id), "--fence", str(fence)]
        try:
            process = subprocess.Popen(command, env=self._environ, stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as error:
            raise Unavailable(f"the training job cannot be started: {error}") from error
        logger.info("training job started", extra={"run_id": str(run_id), "fence": fence, "pid": process.pid})
        Thread(target=_wait, args=(process, run_id), name=f"job-{run_id}", daemon=True).start()


def _wait(process: "subprocess.Popen[bytes]", run_id: UUID) -> None:
    code = process.wait()
    level = logging.INFO if code == 0 else logging.WARNING
    logger.log(level, "training job ended", extra={"run_id": str(run_id), "exit_code": code})


class CloudRunLauncher:
    """Starts a job as an execution of a Cloud Run job, which runs the trainer's image.

    The call is never repeated here: an execution that was begun though its answer was lost would have a twin under the
    same fence. Whoever launches anew claims the run anew, and that shuts the lost one out.

    Args:
        job: `projects/<project>/locations/<region>/jobs/<name>`.
        client: of the Jobs API; made with the service's own credentials if not given.
    """

    def __init__(self, job: str, client: "JobsClient | None" = None) -> None:
        self._job = job
        self._client = client if client is not None else _connect()

    def launch(self, run_id: UUID, fence: int) -> None:
        """Asks for one execution with the arguments of `trainer.job`; its log lines name the run."""
        from google.cloud.run_v2 import RunJobRequest

        arguments = ["--run", str(run_id), "--fence", str(fence)]
        override = RunJobRequest.Overrides.ContainerOverride(args=arguments)
        overrides = RunJobRequest.Overrides(container_overrides=[override], task_count=1)
        with _cloud_run_errors(self._job):
            operation = self._client.run_job(
                RunJobRequest(name=self._job, overrides=overrides), retry=None, timeout=RUN_TIMEOUT_S
            )
        facts = {"run_id": str(run_id), "fence": fence, "operation": operation.operation.name}
        logger.info("training job started", extra=facts)


def _connect() -> "JobsClient":
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.run_v2 import JobsClient

    try:
        return JobsClient()
    except GoogleAuthError as error:
        raise SettingsInvalid(f"LAUNCHER=cloud-run needs Google credentials: {error}") from error


@contextmanager
def _cloud_run_errors(job: str) -> Iterator[None]:
    """Tells what an operator must mend (the caller's fault, 4xx) from what passes by itself."""
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    passing = (exceptions.TooManyRequests, exceptions.Cancelled, exceptions.Aborted)
    try:
        yield
    except (exceptions.ClientError, exceptions.MethodNotImplemented) as error:
        if isinstance(error, passing):
            raise Unavailable(f"Cloud Run: {error}") from error
        raise SettingsInvalid(
            f"TRAINING_JOB {job} cannot be started: {error}; deploy it, and let the trainer's service account run it"
        ) from error
    except (exceptions.GoogleAPIError, GoogleAuthError) as error:
        raise Unavailable(f"Cloud Run: {error}") from error
