"""How a training job comes to life: outside of the service, which answers requests meanwhile."""

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from threading import Thread
from typing import Protocol
from uuid import UUID

from esteira.exceptions import Unavailable

logger = logging.getLogger(__name__)


class Launcher(Protocol):
    """Starts jobs; whether one lives on is told by the lease of its run alone."""

    def launch(self, run_id: UUID, fence: int) -> None:
        """Starts the job of a run and does not wait for it.

        Raises:
            Unavailable: it cannot be started now.
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
