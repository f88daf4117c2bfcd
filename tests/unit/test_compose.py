"""docker-compose.yml names what the code names, publishes nothing by itself, and needs nothing set."""

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from cloud_run import FILE_IN_MEMORY
from dockerfiles import DOCKERFILES, SERVICES, read_image
from esteira.settings import read_settings
from esteira.timer import parse_service
from esteira.topology import SUBSCRIPTIONS, TopologySettings, parse_endpoints
from esteira_cli.stack import bucket
from esteira_cli.stack.services import RECONCILED
from etl.settings import EtlSettings
from monitor.settings import MonitorSettings
from pages import ROOT
from predictor.settings import PredictorSettings
from trainer.job import JobSettings
from trainer.main import Settings as TrainerSettings

TEXT = (ROOT / "docker-compose.yml").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
PUBLIC = {
    "postgres": "postgres:17",
    "pubsub": "gcr.io/google.com/cloudsdktool/google-cloud-cli:emulators",
    "bucket": "fsouza/fake-gcs-server:1.52",
}
BUILT = {**DOCKERFILES, **dict.fromkeys(("migrations", "topology", "timer"), DOCKERFILES["etl"])}
SETTINGS: tuple[tuple[str, Any], ...] = (
    ("etl", EtlSettings),
    ("trainer", TrainerSettings),
    ("trainer", JobSettings),
    ("predictor", PredictorSettings),
    ("monitor", MonitorSettings),
    ("topology", TopologySettings),
)
OF_LIBRARIES = {"PGPASSWORD", "OMP_NUM_THREADS", "MLFLOW_SERVER_ALLOWED_HOSTS"}
"""Read by libpq, OpenMP and MLflow."""


def _defaults(text: str) -> str:
    """The text as Compose reads it where no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services, where no variable is set."""
    found: dict[str, Any] = yaml.safe_load(_defaults(TEXT))["services"]
    return found


def test_etl_has_the_memory_for_the_largest_files_at_once(services: dict[str, Any]) -> None:
    largest = next(f.default for f in msgspec.structs.fields(EtlSettings) if f.name == "max_file_bytes")
    needed = int(services["etl"]["environment"]["THREADS"]) * largest * FILE_IN_MEMORY
    assert needed <= int(services["etl"]["mem_limit"].removesuffix("g")) * 2**30


def test_what_runs_our_images_has_a_first_process_that_hears_signals_and_no_rights(services: dict[str, Any]) -> None:
    for name in BUILT:
        assert services[name]["init"], name
        assert services[name]["cap_drop"] == ["ALL"], name
        assert services[name]["security_opt"] == ["no-new-privileges:true"], name
    assert services["migrations"]["restart"] == "no"


def test_the_predictor_stops_before_who_hears_of_its_predictions(services: dict[str, Any]) -> None:
    hearers = {s.hearer for s in SUBSCRIPTIONS if s.topic == "predictions-served"}
    assert hearers <= set(services["predictor"]["depends_on"])


def test_the_parts_are_those_of_the_stack(services: dict[str, Any]) -> None:
    assert set(services) == {*PUBLIC, *BUILT}
    assert {name: services[name]["image"] for name in PUBLIC} == PUBLIC


@pytest.mark.parametrize("name", BUILT)
def test_what_is_ours_is_built_from_its_dockerfile_with_the_repository_as_context(
    services: dict[str, Any], name: str
) -> None:
    assert services[name]["image"] == f"esteira-{name}:local"
    assert services[name]["build"]["context"] == "."
    assert ROOT / services[name]["build"]["dockerfile"] == BUILT[name]


def test_every_variable_has_a_default_or_says_what_is_missing() -> None:
    for variable in re.findall(r"\$\{[^}]*\}", _without_comments(TEXT)):
        assert re.fullmatch(r"\$\{[A-Z_]+(:-[^}]*|:\?[^}]+)\}", variable), variable
    assert not re.findall(r"\$[A-Za-z_]", _without_comments(TEXT))


def test_a_clean_clone_has_to_set_nothing() -> None:
    assert ":?" not in _without_comments(TEXT)


def test_the_example_lists_every_variable_and_sets_none() -> None:
    known = set(re.findall(r"\$\{([A-Z_]+)", _without_comments(TEXT)))
    assert set(re.findall(r"^# ([A-Z_]+)=", EXAMPLE, re.MULTILINE)) == known | {"COMPOSE_PROJECT_NAME"}
    assert not _without_comments(EXAMPLE).strip()
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_example_shows_the_defaults() -> None:
    shown = dict(re.findall(r"^# ([A-Z_]+)=(.*)", EXAMPLE, re.MULTILINE))
    defaults = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", TEXT))
    assert not {name: shown[name] for name, default in defaults.items() if default and shown[name] != default}


def test_ports_are_free_ones_on_the_loopback(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert len(published) == len(PUBLIC) + len(DOCKERFILES)
    assert not [port for port in published if not re.fullmatch(r"127\.0\.0\.1::\d+", port)]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_port_that_is_published_is_the_one_that_the_image_listens_on(services: dict[str, Any], name: str) -> None:
    assert services[name]["ports"][0].rsplit(":", 1)[1] == read_image(DOCKERFILES[name]).environ["PORT"]
    assert "PORT" not in services[name]["environment"]


def test_two_stacks_can_run_side_by_side(services: dict[str, Any]) -> None:
    assert not [name for name, service in services.items() if "container_name" in service]
    assert not [name for name, service in services.items() if "network_mode" in service]


@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=lambda value: getattr(value, "__name__", value))
def test_the_environment_is_all_that_the_settings_need(services: dict[str, Any], name: str, settings: Any) -> None:
    read_settings(settings, _environ(services, name))


@pytest.mark.parametrize("name", [*SERVICES, "topology"])
def test_the_environment_has_no_name_that_nobody_reads(services: dict[str, Any], name: str) -> None:
    read = {field.upper() for each, settings in SETTINGS if each == name for field in settings.__struct_fields__}
    source = (ROOT / "shared/src/esteira/gunicorn.py").read_text()
    read |= set(re.findall(r'environ\.get\("(\w+)"\)', source)) | OF_LIBRARIES
    assert not set(services[name]["environment"]) - read


def test_mlflow_is_told_what_its_server_asks_for(services: dict[str, Any]) -> None:
    source = (ROOT / "cli/src/esteira_cli/stack/tracking_server.py").read_text()
    asked = set(re.findall(r'environ\["([A-Z]\w+)"\]', source))
    assert asked <= set(_environ(services, "mlflow"))
    told = services["mlflow"]["environment"]
    assert told["ARTIFACT_ROOT"] == f"gs://{services['etl']['environment']['BUCKET']}/mlflow"
    assert "mlflow:8080" in told["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    database = told["DATABASE_URL"].rsplit("/", 1)[1]
    assert f"CREATE DATABASE {database};" in (ROOT / "infra/postgres/databases.sql").read_text()


def test_hosts_that_are_named_are_parts_and_ports_are_theirs(services: dict[str, Any]) -> None:
    for host, port in re.findall(r"https?://([a-z]+):(\d+)", _defaults(_without_comments(TEXT))):
        assert f":{port}" in services[host]["ports"][0], host
    user = services["postgres"]["environment"]["POSTGRES_USER"]
    for name in ("etl", "trainer", "monitor", "migrations", "mlflow"):
        assert f"//{user}@postgres/" in services[name]["environment"]["DATABASE_URL"]


def test_topics_and_timer_reach_every_service_that_listens(services: dict[str, Any]) -> None:
    endpoints = parse_endpoints(services["topology"]["environment"]["ENDPOINTS"])
    assert set(endpoints) == {subscription.hearer for subscription in SUBSCRIPTIONS}
    called = dict(parse_service(word.split("=", 1)[1]) for word in services["timer"]["command"] if "--service" in word)
    assert set(called) == set(RECONCILED)
    assert all(url == f"http://{name}:8080" for name, url in {**endpoints, **called}.items())


@pytest.mark.parametrize("name", ["migrations", "topology", "timer"])
def test_the_commands_are_modules_of_the_shared_package(services: dict[str, Any], name: str) -> None:
    python, option, module, *_ = services[name]["command"]
    assert (python, option) == ("python", "-m")
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    assert '__name__ == "__main__"' in Path(spec.origin).read_text()


def test_uploads_are_announced_as_in_the_embedded_stack(services: dict[str, Any]) -> None:
    options = dict(word.lstrip("-").split("=", 1) for word in services["bucket"]["command"])
    assert options["event.pubsub-topic"] == bucket.TOPIC
    assert options["event.object-prefix"] == bucket.WATCHED
    assert options["event.list"] == "finalize"
    assert options["event.pubsub-project-id"] == services["etl"]["environment"]["GOOGLE_CLOUD_PROJECT"]
    assert "external-url" not in options, "answers would send clients outside to an address that is known inside only"


def test_what_others_wait_for_says_when_it_is_healthy(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            checked = "test" in services[needed].get("healthcheck", {}) or (
                needed in DOCKERFILES and "healthcheck" not in services[needed]
            )
            assert how["condition"] != "service_healthy" or checked, f"{name} waits for {needed}"
            assert how["condition"] != "service_completed_successfully" or services[needed].get("restart", "no") == "no"


def test_what_is_no_server_does_not_inherit_a_servers_health_check(services: dict[str, Any]) -> None:
    for name in ("migrations", "timer"):
        assert services[name]["healthcheck"] == {"disable": True}
    assert "/health" not in str(services["topology"]["healthcheck"])


def test_data_are_in_named_volumes_and_memory_is_bounded(services: dict[str, Any]) -> None:
    volumes = yaml.safe_load(TEXT)["volumes"]
    kept = {volume.split(":")[0] for name in PUBLIC for volume in services[name].get("volumes", ())}
    assert set(volumes) <= kept
    assert not [name for name, service in services.items() if "mem_limit" not in service]


def test_what_ends_comes_back_except_for_the_migrations(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if service.get("restart") != "unless-stopped"} == {"migrations"}


@pytest.mark.parametrize("command", [["docker-compose"], ["docker", "compose"]], ids=["v1", "v2"])
def test_compose_itself_takes_the_file(command: list[str]) -> None:
    if (
        not shutil.which(command[0])
        or subprocess.run([*command, "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip(f"`{' '.join(command)}` is not on this machine")
    options = ["--file", str(ROOT / "docker-compose.yml"), "--project-name", "esteira", "config", "--quiet"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def _environ(services: dict[str, Any], name: str) -> dict[str, str]:
    """What the process of a service is told by its image and by Compose."""
    return {**read_image(BUILT[name]).environ, **services[name]["environment"]}


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
