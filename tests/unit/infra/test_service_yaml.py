"""The Cloud Run templates, held against the code that they run."""

import ast
import importlib.util
import re
import runpy
from pathlib import Path
from string import Template
from typing import Any

import msgspec
import pytest
import yaml
from sqlalchemy import make_url

import etl.handlers
import trainer.main
from apps import APPS, SETTINGS
from cloud_run import FILE_IN_MEMORY, JOBS, PLACEHOLDERS, SERVICES, TEMPLATES, VALUES, address, load
from esteira.cloud_sql import needs_token
from esteira.id_tokens import IdTokenAuthProvider
from esteira.settings import ServiceSettings, read_settings
from esteira.topology import SUBSCRIPTIONS
from etl.settings import EtlSettings
from pages import ROOT
from trainer.job import JobSettings

OURS = tuple(APPS)
GUNICORN = {"WEB_CONCURRENCY", "THREADS"}
OPENMP = {"OMP_NUM_THREADS", "OMP_WAIT_POLICY"}
MEMORY_FOR_CPUS = {"1": (0.5, 4), "2": (0.5, 8), "4": (2, 16)}


def gunicorn_of(service: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    for name, value in load(service).environ.items():
        monkeypatch.setenv(name, value)
    return runpy.run_path(str(ROOT / "shared/src/esteira/gunicorn.py"))


def settings_of(name: str) -> type[msgspec.Struct]:
    return JobSettings if name == "training" else SETTINGS[name][0]


def gets(service: str) -> set[str]:
    rules = APPS[service]().url_map.iter_rules()
    return {rule.rule for rule in rules if "GET" in (rule.methods or set())}


def gibibytes(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", text).groups()  # type: ignore[union-attr]
    return int(number) / (1024 if unit == "Mi" else 1)


def test_every_placeholder_is_explained_in_one_place_and_used() -> None:
    used = {name for path in TEMPLATES.values() for name in Template(path.read_text()).get_identifiers()}
    assert used == set(yaml.safe_load(PLACEHOLDERS.read_text())) == set(VALUES)


def test_every_template_is_looked_at() -> None:
    found = {*ROOT.glob("services/*/service.yaml"), *ROOT.glob("infra/*/service.yaml"), *ROOT.glob("infra/jobs/*.yaml")}
    assert found == set(TEMPLATES.values())


@pytest.mark.parametrize("name", TEMPLATES)
def test_cloud_run_takes_the_form(name: str) -> None:
    workload = load(name)
    form = ("run.googleapis.com/v1", "Job") if name in JOBS else ("serving.knative.dev/v1", "Service")
    assert (workload.manifest["apiVersion"], workload.manifest["kind"]) == form
    assert workload.manifest["metadata"]["name"] == f"esteira-{name}"
    assert workload.revision["run.googleapis.com/execution-environment"] == "gen2"
    texts = [*workload.annotations.values(), *workload.revision.values()]
    texts += [entry["value"] for entry in workload.main["env"] if "value" in entry]
    assert all(isinstance(text, str) for text in texts), "Cloud Run takes no numbers and booleans here"


@pytest.mark.parametrize("name", TEMPLATES)
def test_cpu_and_memory_fit_together(name: str) -> None:
    for container in load(name).spec["containers"]:
        limits = container["resources"]["limits"]
        least, most = MEMORY_FOR_CPUS[limits["cpu"]]
        assert least <= gibibytes(limits["memory"]) <= most


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_runs_as_a_service_account_of_its_own(name: str) -> None:
    account = {"migrations": "etl", "training": "trainer"}.get(name, name)
    assert load(name).spec["serviceAccountName"] == f"esteira-{account}@{VALUES['PROJECT']}.iam.gserviceaccount.com"


@pytest.mark.parametrize("name", [*OURS, "training"])
def test_the_environment_is_what_the_settings_read(name: str) -> None:
    environ = load(name).environ
    read_settings(settings_of(name), environ)  # every required one is there, and every one is of its type
    known = {field.name.upper() for field in msgspec.structs.fields(settings_of(name))}
    assert set(environ) - known == (OPENMP if name == "training" else GUNICORN)


@pytest.mark.parametrize("name", TEMPLATES)
def test_cloud_runs_own_variables_are_left_alone(name: str) -> None:
    assert not set(load(name).environ) & {"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"}


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_secret_stands_in_clear_text(name: str) -> None:
    for container in load(name).spec["containers"]:
        for entry in container.get("env", []):
            secret = re.search("TOKEN|SECRET|PASSWORD|CREDENTIAL|KEY", entry["name"])
            assert not secret or "value" not in entry, f"{entry['name']} belongs to Secret Manager"
            assert not re.search(r"://[^/@]*:[^/@]+@", entry.get("value", "")), f"{entry['name']} holds a password"


def test_the_only_secret_is_the_token_for_github() -> None:
    entries = [(name, entry) for name in TEMPLATES for entry in load(name).main["env"] if "valueFrom" in entry]
    ((name, entry),) = entries
    assert (name, entry["name"]) == ("trainer", "GITHUB_TOKEN")
    assert entry["valueFrom"] == {"secretKeyRef": {"name": "esteira-github-token", "key": "latest"}}


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "predictor"])
def test_postgres_is_entered_as_the_iam_user_of_the_service_account(name: str) -> None:
    workload = load(name)
    url = make_url(workload.environ["DATABASE_URL"])
    instance = f"{VALUES['PROJECT']}:{VALUES['REGION']}:esteira"
    assert f"{url.username}.gserviceaccount.com" == workload.spec["serviceAccountName"]
    assert url.drivername == "postgresql+psycopg"
    if name == "mlflow":
        (proxy,) = workload.sidecars
        assert (url.host, url.database) == ("127.0.0.1", "mlflow")
        assert {f"--port={url.port}", "--auto-iam-authn", instance} <= set(proxy["args"])
    else:
        assert needs_token(url)
        assert (url.query["host"], url.database) == (f"/cloudsql/{instance}", "esteira")
        assert workload.revision["run.googleapis.com/cloudsql-instances"] == instance


@pytest.mark.parametrize("service", OURS)
def test_the_port_is_the_one_that_the_service_listens_on(service: str) -> None:
    (port,) = load(service).main["ports"]
    assert port["containerPort"] == msgspec.structs.fields(ServiceSettings)[0].default


@pytest.mark.parametrize("service", OURS)
def test_probes_ask_for_paths_that_are_served(service: str) -> None:
    container = load(service).main
    assert container["startupProbe"]["httpGet"]["path"] == "/health/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live", "an outage of Postgres must kill nothing"
    assert {"/health/ready", "/health/live"} <= gets(service)


@pytest.mark.parametrize("service", SERVICES)
def test_probes_keep_within_cloud_runs_bounds(service: str) -> None:
    for container in load(service).spec["containers"]:
        startup = container["startupProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] <= 240
        for probe in (startup, container.get("livenessProbe", startup)):
            assert 1 <= probe["timeoutSeconds"] <= probe["periodSeconds"]


@pytest.mark.parametrize("service", OURS)
def test_no_path_is_one_that_cloud_run_keeps_for_itself(service: str) -> None:
    paths = {rule.rule for rule in APPS[service]().url_map.iter_rules()}
    assert not {path for path in paths if path.endswith("z") or path.startswith(("/eventlog", "/_ah/"))}


@pytest.mark.parametrize("service", OURS)
def test_requests_at_once_leave_one_thread_for_probes(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gunicorn = gunicorn_of(service, monkeypatch)
    assert load(service).spec["containerConcurrency"] == gunicorn["workers"] * gunicorn["threads"] - 1


@pytest.mark.parametrize("service", ["etl", "trainer", "monitor"])
def test_each_request_at_once_has_a_connection(service: str) -> None:
    settings: Any = read_settings(settings_of(service), load(service).environ)
    needed = 2 if service == "etl" else 1  # etl works and heartbeats
    assert settings.pool_size >= load(service).spec["containerConcurrency"] * needed + 1


@pytest.mark.parametrize("subscription", SUBSCRIPTIONS, ids=lambda s: s.name)
def test_a_request_may_last_as_long_as_pubsub_waits_for_it(subscription: Any) -> None:
    assert subscription.ack_deadline_s <= load(subscription.hearer).spec["timeoutSeconds"] <= 3600


def test_reconciling_ends_with_its_last_file_before_the_request_is_cut_off() -> None:
    (pushed,) = [s for s in SUBSCRIPTIONS if s.hearer == "etl"]
    assert etl.handlers.RECONCILE_SECONDS + pushed.ack_deadline_s <= load("etl").spec["timeoutSeconds"]


def test_etl_has_the_memory_for_the_largest_files_at_once() -> None:
    etl_ = load("etl")
    settings = read_settings(EtlSettings, etl_.environ)
    needed = etl_.spec["containerConcurrency"] * settings.max_file_bytes * FILE_IN_MEMORY
    assert needed <= gibibytes(etl_.main["resources"]["limits"]["memory"]) * 2**30


def modules_with_threads(service: str) -> set[str]:
    files = Path(ROOT / f"services/{service}/src").rglob("*.py")
    return {file.stem for file in files if re.search(r"\bThread\(", file.read_text())}


@pytest.mark.parametrize("service", OURS)
def test_threads_between_requests_have_cpu(service: str) -> None:
    workload = load(service)
    threads = modules_with_threads(service)
    if workload.environ.get("LAUNCHER") == "cloud-run":
        threads -= {"launcher"}  # it waits for jobs on its own machine only
    throttled = workload.revision["run.googleapis.com/cpu-throttling"]
    assert throttled == ("false" if threads else "true")


def test_pushes_are_held_against_the_address_and_account_that_they_carry() -> None:
    for service in OURS:
        environ = load(service).environ
        assert environ["PUSH_AUDIENCE"] == address(service)
        assert environ["PUSH_SERVICE_ACCOUNT"] == f"esteira-push@{VALUES['PROJECT']}.iam.gserviceaccount.com"
        assert environ["PUSH_AUTHENTICATION"] == "iam"


def test_iam_checks_every_caller_and_the_network_shuts_off_mlflow_besides() -> None:
    for service in SERVICES:
        annotations = load(service).annotations
        assert annotations["run.googleapis.com/ingress"] == ("internal" if service == "mlflow" else "all")
        assert "run.googleapis.com/invoker-iam-disabled" not in annotations


@pytest.mark.parametrize("name", ["trainer", "monitor", "training"])
def test_mlflow_is_reached_by_way_of_the_network(name: str) -> None:
    workload, mlflow = load(name), load("mlflow")
    assert workload.environ["MLFLOW_TRACKING_URI"] == address("mlflow")
    assert workload.environ["MLFLOW_TRACKING_AUTH"] == IdTokenAuthProvider().get_name()
    assert mlflow.environ["MLFLOW_SERVER_ALLOWED_HOSTS"] == address("mlflow").removeprefix("https://")
    assert workload.revision["run.googleapis.com/vpc-access-egress"] == "private-ranges-only"
    assert '"network":"esteira"' in workload.revision["run.googleapis.com/network-interfaces"]


def test_mlflows_environment_is_what_its_server_reads() -> None:
    environ = set(load("mlflow").environ)
    server = ast.parse((ROOT / "cli/src/esteira_cli/stack/tracking_server.py").read_text())
    read = {
        node.slice.value
        for node in ast.walk(server)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and node.slice.value != "_"
        if isinstance(node.value, ast.Name) and node.value.id == "environ"
    }
    assert read
    image = set(re.findall(r"^(?:ENV| +)\s*([A-Z_]+)=", (ROOT / "infra/mlflow/Dockerfile").read_text(), re.M))
    assert read <= environ | image | {"PORT"}
    folder = Path(importlib.util.find_spec("mlflow").origin).parent  # type: ignore[union-attr, arg-type]
    known = set(re.findall(r'"(MLFLOW_\w+)"', (folder / "environment_variables.py").read_text()))
    assert environ <= read | known | {"GOOGLE_CLOUD_PROJECT"}


def test_a_sidecar_is_up_before_what_needs_it_and_of_an_exact_version() -> None:
    mlflow = load("mlflow")
    (proxy,) = mlflow.sidecars
    assert mlflow.revision["run.googleapis.com/container-dependencies"] == '{"mlflow":["cloud-sql-proxy"]}'
    assert (mlflow.main["name"], proxy["name"]) == ("mlflow", "cloud-sql-proxy")
    assert f"--http-port={proxy['startupProbe']['httpGet']['port']}" in proxy["args"]
    assert re.search(r":\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?$", proxy["image"])


@pytest.mark.parametrize("job", JOBS)
def test_a_job_runs_a_module_that_exists(job: str) -> None:
    python, option, module = load(job).main["command"]
    assert (python, option) == ("python", "-m")
    assert importlib.util.find_spec(module) is not None


def test_a_training_is_attempted_anew_by_the_trainer_alone() -> None:
    training, service = load("training"), load("trainer")
    assert training.spec["maxRetries"] == 0
    assert service.environ["LEASE_SECONDS"] == training.environ["LEASE_SECONDS"]
    settings = read_settings(trainer.main.Settings, service.environ)
    location = f"projects/{VALUES['PROJECT']}/locations/{VALUES['REGION']}"
    assert settings.training_job == f"{location}/jobs/{training.manifest['metadata']['name']}"
    assert training.environ["OMP_NUM_THREADS"] == training.main["resources"]["limits"]["cpu"]
