"""The Dockerfiles do what Cloud Run and the code expect of an image, with any builder."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest

from dockerfiles import DOCKERFILES, SERVICES, Image, read_image
from esteira import gunicorn
from esteira.settings import ServiceSettings
from pages import ROOT

UNWANTED = ("alembic", "mlflow", "mlflow-skinny", "pandas", "psycopg", "scikit-learn", "sqlalchemy")
SCORING = ("trainer", "predictor")
OWN_CODE = {name: (*(("kernel",) if name in SCORING else ()), "shared", f"services/{name}") for name in SERVICES}


@pytest.fixture(params=DOCKERFILES)
def name(request: pytest.FixtureRequest) -> str:
    """The name of an image."""
    return str(request.param)


@pytest.fixture
def image(name: str) -> Image:
    """What its Dockerfile makes."""
    return read_image(DOCKERFILES[name])


def test_any_builder_takes_it(image: Image) -> None:
    for asked in ("# syntax", "# escape", "--mount", "--network", "--security", "--chmod", "--link", "<<"):
        assert asked not in image.text


def test_two_stages_stand_on_the_same_base(image: Image) -> None:
    bases = [stage[0].value for stage in image.stages]
    assert bases == ["python:3.13-slim-trixie AS build", "python:3.13-slim-trixie"]


def test_the_last_stage_installs_nothing_and_takes_only_the_environment_from_the_first(image: Image) -> None:
    final = image.stages[-1]
    assert not [each.value for each in final if each.name == "RUN" and re.search(r"\b(pip|apt|apt-get)\b", each.value)]
    assert [each.value for each in final if "--from=" in each.value] == ["--from=build /venv /venv"]


def test_the_environment_has_no_installer(image: Image) -> None:
    assert "python -m venv --without-pip /venv" in image.text


def test_everything_is_installed_by_hash_or_from_wheels_made_here(image: Image) -> None:
    runs = " && ".join(each.value for each in image.all("RUN")).split("&&")
    for command in (run for run in runs if re.search(r"\bpip\b.*\binstall\b", run)):
        assert "--require-hashes" in command or ("--no-deps" in command and "--no-index" in command), command
    for command in (run for run in runs if re.search(r"\bpip\b.*\bwheel\b", run)):
        assert "--no-deps" in command
        assert "--no-build-isolation" in command, "the build backend would come without a hash"


def test_it_runs_as_a_user_without_rights_and_with_a_number_that_kubernetes_can_check(image: Image) -> None:
    assert image.last("USER").value == "10001:10001"
    assert "useradd --uid 10001" in image.text


def test_its_process_gets_the_signals_and_its_lines_come_at_once(image: Image) -> None:
    assert image.last("CMD").words
    assert image.last("STOPSIGNAL").value == "SIGTERM"
    assert image.environ["PYTHONUNBUFFERED"] == "1"
    assert not image.all("ENTRYPOINT")


def test_it_listens_where_it_says(image: Image) -> None:
    default = next(field.default for field in msgspec.structs.fields(ServiceSettings) if field.name == "port")
    assert image.environ["PORT"] == image.last("EXPOSE").value == str(default)


def test_what_it_copies_is_there_and_in_the_build_context(image: Image) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in image.sources:
        assert (ROOT / source).exists(), source
        assert any(source == path or source.startswith(f"{path}/") for path in allowed), source


def test_the_build_context_holds_nothing_but_what_is_named() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    named = {line[1:] for line in lines if line.startswith("!")}
    copied = {source for path in DOCKERFILES.values() for source in read_image(path).sources}
    assert not [path for path in named if not any(f"{source}/".startswith(f"{path}/") for source in copied)]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_brings_its_own_requirements_and_its_own_code_only(service: str) -> None:
    sources = set(read_image(DOCKERFILES[service]).sources) - {"pipelines", "requirements-build.txt"}
    assert sources == {*OWN_CODE[service], f"services/{service}/requirements.txt"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_started_as_its_entry_says(service: str) -> None:
    words = read_image(DOCKERFILES[service]).last("CMD").words
    if service == "predictor":  # it chooses its server
        assert words == ["python", "-m", "predictor.server"]
    else:
        assert words == ["gunicorn", "-c", "python:esteira.gunicorn", f"{service}.main:create()"]
    spec = find_spec(f"{service}.main")
    assert spec is not None
    assert spec.origin is not None
    assert "def create(" in Path(spec.origin).read_text()
    assert gunicorn.bind.startswith("0.0.0.0:"), "an address of the loopback is not reached from outside"


@pytest.mark.parametrize("service", SERVICES)
def test_services_are_built_alike(service: str) -> None:
    """What differs is the name, what scores, reads pipelines or writes to MLflow, and the server that is started."""
    own = (
        r"COPY pipelines .*\n",
        r"COPY kernel .*\n|RUN .* /source/kernel/requirements-build.txt\n| /source/kernel\b",
        r"CMD \[\"(gunicorn|python)\".*\n",
        r"    (PIPELINES_DIR|DO_NOT_TRACK|MLFLOW_\w+)=\S+ \\\n",
    )
    texts = []
    for each in ("etl", service):
        text = DOCKERFILES[each].read_text()
        for pattern in own:
            text = re.sub(pattern, "", text)
        texts.append(text.replace(each, "<name>"))
    assert texts[0] == texts[1]


def test_who_reads_pipelines_has_them() -> None:
    having = {name for name in SERVICES if "pipelines" in read_image(DOCKERFILES[name]).sources}
    assert having == {"etl", "trainer", "monitor"}
    for name in having:
        assert read_image(DOCKERFILES[name]).environ["PIPELINES_DIR"] == "/app/pipelines"


def test_the_predictor_carries_nothing_that_serving_does_not_need() -> None:
    locked = (ROOT / "services/predictor/requirements.txt").read_text()
    assert not [name for name in UNWANTED if re.search(rf"^{name}==", locked, re.MULTILINE)]


@pytest.mark.parametrize(
    "path",
    [
        *("requirements-build.txt", "kernel/requirements-build.txt", "infra/mlflow/requirements.txt"),
        *(f"services/{s}/requirements.txt" for s in SERVICES),
    ],
)
def test_what_is_installed_is_locked_by_hash_and_agrees_with_the_workspace(path: str) -> None:
    locked = _locked(path)
    assert locked
    workspace = _locked("requirements.txt")
    assert not {name: found for name, found in locked.items() if workspace.get(name, found) != found}
    unhashed = [
        block for block in re.split(r"\n(?=\S)", (ROOT / path).read_text()) if "==" in block and "sha256:" not in block
    ]
    assert not unhashed


def test_mlflow_runs_the_module_of_the_embedded_stack() -> None:
    image = read_image(DOCKERFILES["mlflow"])
    assert "cli/src/esteira_cli/stack/tracking_server.py" in image.sources
    assert image.last("CMD").words == ["python", "-m", "tracking_server"]
    asked = re.findall(r'environ\["([A-Z]\w+)"\]', (ROOT / "cli/src/esteira_cli/stack/tracking_server.py").read_text())
    assert {"HOST", "PORT"} <= set(asked) & set(image.environ)


@pytest.mark.enable_socket
@pytest.mark.parametrize("status", [200, 503])
def test_the_health_check_tells_a_healthy_service_from_one_that_is_not(
    name: str, image: Image, server: "Healthy", status: int
) -> None:
    server.status = status
    words = image.last("HEALTHCHECK").words
    environ = {**os.environ, "PORT": str(server.server_port), "http_proxy": "http://127.0.0.1:1"}
    done = subprocess.run([sys.executable, *words[1:]], env=environ, capture_output=True, timeout=30, check=False)
    assert (done.returncode == 0) == (status == 200)
    assert server.asked == ["/health" if name == "mlflow" else "/health/live"]


@pytest.mark.enable_socket
def test_the_health_check_fails_where_nobody_listens(image: Image) -> None:
    words = image.last("HEALTHCHECK").words
    environ = {**os.environ, "PORT": "1"}
    done = subprocess.run([sys.executable, *words[1:]], env=environ, capture_output=True, timeout=30, check=False)
    assert done.returncode == 1


class Healthy(HTTPServer):
    """A service that answers each GET with `status`."""

    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Healthy

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[Healthy]:
    """A server that runs."""
    with Healthy() as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def _locked(path: str) -> dict[str, set[str]]:
    """Versions by name; there may be one for each Python."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / path).read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found
