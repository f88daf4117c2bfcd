"""Jobs on Cloud Run: the real client of the Jobs API against a server that speaks it."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

import grpc
import pytest
from google.cloud.run_v2 import Execution, JobsClient, RunJobRequest
from google.cloud.run_v2.services.jobs.transports import JobsGrpcTransport
from google.longrunning import operations_pb2
from google.protobuf.any_pb2 import Any as Packed
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from esteira.dataset import Manifest
from esteira.events import DatasetPrepared
from esteira.exceptions import SettingsInvalid, Unavailable
from esteira.pushes import Delivery
from esteira.settings import read_settings
from esteira.tables import training_runs
from esteira_cli.stack import Stack
from trainer.handlers import Trainer
from trainer.launcher import CloudRunLauncher
from trainer.main import Settings, make_trainer
from trainer.repository import MAX_ATTEMPTS

JOB = "projects/acme/locations/europe-west1/jobs/esteira-training"
PIPELINE = "parcels"
RUN = UUID("7d4c1b5e-7d55-4f5b-9d0a-5f2c9f3a1c11")


class JobsApi(grpc.GenericRpcHandler):
    """Answers `RunJob` as Cloud Run does: with an operation that is under way, or with a refusal."""

    def __init__(self) -> None:
        self.asked: list[RunJobRequest] = []
        self.refusal: grpc.StatusCode | None = None

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != "/google.cloud.run.v2.Jobs/RunJob":
            return None
        return grpc.unary_unary_rpc_method_handler(
            self._run, RunJobRequest.deserialize, operations_pb2.Operation.SerializeToString
        )

    def _run(self, request: RunJobRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        self.asked.append(request)
        if self.refusal is not None:
            context.abort(self.refusal, "not today")
        execution = Packed()
        execution.Pack(Execution.pb(Execution(name=f"{request.name}/executions/one")))
        return operations_pb2.Operation(name="operations/one", metadata=execution)


@pytest.fixture
def jobs() -> JobsApi:
    return JobsApi()


@pytest.fixture
def address(jobs: JobsApi) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2), handlers=[jobs])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def connect(address: str) -> CloudRunLauncher:
    return CloudRunLauncher(JOB, JobsClient(transport=JobsGrpcTransport(channel=grpc.insecure_channel(address))))


@pytest.fixture
def launcher(address: str) -> CloudRunLauncher:
    return connect(address)


def test_one_execution_is_asked_for_with_the_run_and_its_fence(launcher: CloudRunLauncher, jobs: JobsApi) -> None:
    launcher.launch(RUN, 3)
    (request,) = jobs.asked
    assert request.name == JOB
    assert request.overrides.task_count == 1
    (override,) = request.overrides.container_overrides
    assert list(override.args) == ["--run", str(RUN), "--fence", "3"]


PASSING = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "ABORTED", "CANCELLED", "UNKNOWN")


@pytest.mark.parametrize("code", PASSING)
def test_what_passes_is_unavailable_and_asked_for_once(launcher: CloudRunLauncher, jobs: JobsApi, code: str) -> None:
    jobs.refusal = grpc.StatusCode[code]
    with pytest.raises(Unavailable, match="Cloud Run"):
        launcher.launch(RUN, 3)
    assert len(jobs.asked) == 1, "a second execution under the same fence would be a twin"


LASTING = ("NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", "INVALID_ARGUMENT", "FAILED_PRECONDITION")


@pytest.mark.parametrize("code", [*LASTING, "UNIMPLEMENTED"])
def test_what_somebody_must_mend_names_the_job(launcher: CloudRunLauncher, jobs: JobsApi, code: str) -> None:
    jobs.refusal = grpc.StatusCode[code]
    with pytest.raises(SettingsInvalid, match=f"TRAINING_JOB {JOB} cannot be started"):
        launcher.launch(RUN, 3)


def test_no_jobs_api_at_all_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="Cloud Run"):
        connect("127.0.0.1:1").launch(RUN, 3)


class Versions(Protocol):
    """Writes dataset versions as etl does."""

    def add(self, rows: int = 3000) -> Manifest: ...


@pytest.fixture
def settings(
    infrastructure: Stack, database_url: str, bucket_name: str, pubsub_project: str, pipelines_dir: Path
) -> Settings:
    """Settings without MLflow: no job of these tests works."""
    given = {
        "GOOGLE_CLOUD_PROJECT": pubsub_project,
        "BUCKET": bucket_name,
        "DATABASE_URL": database_url,
        "PIPELINES_DIR": str(pipelines_dir),
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
        "PUSH_AUTHENTICATION": "none",
        "LAUNCHER": "cloud-run",
        "TRAINING_JOB": JOB,
    }
    return read_settings(Settings, given)


@pytest.fixture
def trainer(settings: Settings, launcher: CloudRunLauncher) -> Iterator[Trainer]:
    trainer = make_trainer(settings, launcher)
    yield trainer
    trainer.close()


def request_first(trainer: Trainer, manifest: Manifest) -> None:
    event = DatasetPrepared(
        pipeline=PIPELINE,
        number=manifest.number,
        version=manifest.version,
        rows=manifest.rows,
        ingestion_id=manifest.parts[-1].ingestion_id,
    )
    trainer.on_dataset_prepared(event, Delivery(event_id=str(uuid4()), attributes={}, data=b""))


def the_run(engine: Engine) -> Any:
    with Session(engine) as session:
        return session.execute(select(training_runs)).one()


def end_pause(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        session.execute(update(training_runs).values(lease_until=None))


@pytest.mark.parametrize(
    ("code", "level"), [("UNAVAILABLE", logging.WARNING), ("PERMISSION_DENIED", logging.ERROR)], ids=str
)
def test_a_job_that_cannot_be_started_is_no_attempt_and_is_started_later(
    trainer: Trainer,
    versions: Versions,
    jobs: JobsApi,
    engine: Engine,
    caplog: pytest.LogCaptureFixture,
    code: str,
    level: int,
) -> None:
    jobs.refusal = grpc.StatusCode[code]
    request_first(trainer, versions.add())
    for _ in range(MAX_ATTEMPTS + 1):
        end_pause(engine)
        counts = trainer.reconcile()
        assert (counts["launched"], counts["given_up"]) == (0, 0)
    run = the_run(engine)
    assert (run.status, run.attempts) == ("requested", 0)
    assert "the job was not started" in run.verdict
    assert {record.levelno for record in caplog.records if record.message == "training job not started"} == {level}
    jobs.refusal = None
    end_pause(engine)
    assert trainer.reconcile()["launched"] == 1
    run = the_run(engine)
    assert (run.attempts, list(jobs.asked[-1].overrides.container_overrides[0].args)[-1]) == (1, str(run.fence))
    assert run.fence == len(jobs.asked), "each start has a fence of its own"


def test_a_run_whose_job_was_not_started_rests_a_while(
    trainer: Trainer, versions: Versions, jobs: JobsApi, engine: Engine
) -> None:
    jobs.refusal = grpc.StatusCode.UNAVAILABLE
    request_first(trainer, versions.add())
    assert trainer.reconcile()["launched"] == 0
    assert len(jobs.asked) == 1
