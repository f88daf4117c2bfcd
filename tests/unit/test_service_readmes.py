"""The READMEs of services and shared code, held against what is served, pushed and read."""

import re
from collections.abc import Callable

import msgspec
import pytest
from flask import Flask

import trainer.main
from esteira.bucket import Bucket
from esteira.database import make_engine
from esteira.outbox import Relay
from esteira.publisher import Publisher
from esteira.settings import ServiceSettings
from esteira.topology import SUBSCRIPTIONS
from etl.app import create_app as create_etl
from etl.attempt import Attempts
from etl.handlers import Handlers
from etl.ingest import Ingestor
from etl.settings import EtlSettings
from monitor.app import Adapters
from monitor.app import create_app as create_monitor
from monitor.settings import MonitorSettings
from pages import ROOT, read, section, table_rows, ticked
from predictor.app import create_app as create_predictor
from predictor.prediction_log import PredictionLog
from predictor.serving import Servings
from predictor.settings import PredictorSettings
from trainer.app import create_app as create_trainer
from trainer.job import JobSettings

SERVICES = ("etl", "trainer", "predictor", "monitor")
NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
PROJECT = "documentation"


def etl_app() -> Flask:
    engine, bucket = make_engine(NOWHERE), Bucket("b", PROJECT, "http://127.0.0.1:1")
    ingestor = Ingestor(engine, Attempts(engine, bucket, {}, 1), 60.0)
    return create_etl(Handlers(engine, bucket, ingestor, Relay(engine, Publisher(PROJECT)), []), None)


def trainer_app() -> Flask:
    settings = trainer.main.Settings(
        google_cloud_project=PROJECT,
        bucket="b",
        storage_emulator_host="http://127.0.0.1:1",
        database_url=NOWHERE,
        pipelines_dir=ROOT / "pipelines",
        mlflow_tracking_uri="http://127.0.0.1:1",
    )
    return create_trainer(trainer.main.make_trainer(settings), None)


def predictor_app() -> Flask:
    publisher = Publisher(PROJECT)
    servings = Servings(Bucket("b", PROJECT, "http://127.0.0.1:1"), ROOT, 2.0)
    return create_predictor(servings, PredictionLog(publisher, 1.0), publisher, None)


def monitor_app() -> Flask:
    adapters = Adapters(
        engine=make_engine(NOWHERE),
        bucket=Bucket("b", PROJECT, "http://127.0.0.1:1"),
        publisher=Publisher(PROJECT),
        mlflow_tracking_uri="http://127.0.0.1:1",
    )
    return create_monitor(adapters, {}, None)


APPS: dict[str, Callable[[], Flask]] = {
    "etl": etl_app,
    "trainer": trainer_app,
    "predictor": predictor_app,
    "monitor": monitor_app,
}
SETTINGS: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "etl": (EtlSettings,),
    "trainer": (trainer.main.Settings, JobSettings),
    "predictor": (PredictorSettings,),
    "monitor": (MonitorSettings,),
}


def anonymous(path: str) -> str:
    """A path with its parameters unnamed, and Swagger UI's own files left out."""
    return "/docs/" if path.startswith("/docs") else re.sub(r"<[^>]*>", "<>", path)


def served(app: Flask) -> set[str]:
    return {
        f"{method} {anonymous(rule.rule)}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


@pytest.mark.parametrize("service", SERVICES)
def test_a_readme_lists_exactly_the_endpoints_that_are_served(service: str) -> None:
    text = section(read(f"services/{service}/README.md"), "Endpoints", "HTTP")
    written = {f"{method} {anonymous(path)}" for method, path in re.findall(r"`(GET|POST) (/[^`?\s]*)`", text)}
    assert written == served(APPS[service]())


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_takes_exactly_the_events_that_are_pushed_to_it(service: str) -> None:
    taken = {path.removeprefix("POST ") for path in served(APPS[service]()) if path.startswith("POST /events/")}
    assert taken == {subscription.path for subscription in SUBSCRIPTIONS if subscription.hearer == service}


def variables(text: str) -> set[str]:
    return set(re.findall(r"`([A-Z]+(?:_[A-Z]+)*)`", text))


def variables_of(*structs: type[msgspec.Struct]) -> set[str]:
    return {field.name.upper() for struct in structs for field in msgspec.structs.fields(struct)}


@pytest.mark.parametrize("service", SERVICES)
def test_a_readme_lists_exactly_the_environment_that_is_read(service: str) -> None:
    written = variables(section(read(f"services/{service}/README.md"), "Environment"))
    foreign = {"WEB_CONCURRENCY", "THREADS", "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"}
    assert written - foreign == variables_of(*SETTINGS[service])


def test_the_shared_readme_lists_what_every_service_reads() -> None:
    written = variables(section(read("shared/README.md"), "Running a service"))
    assert written == variables_of(ServiceSettings) | {"WEB_CONCURRENCY", "THREADS"}


def test_the_command_lines_readme_lists_what_the_stack_runs() -> None:
    written = {name for row in table_rows(section(read("cli/README.md"), "The local stack")) for name in ticked(row[0])}
    assert written == {"postgres", "pubsub", "bucket", "mlflow", "tick", *SERVICES}
