from pathlib import Path

import msgspec
import pytest

from apps import SETTINGS
from esteira_cli.stack.blueprint import PORTS, Blueprint, Options
from esteira_cli.stack.graph import waves
from esteira_cli.stack.processes import WITHHELD
from esteira_cli.stack.services import INHERITED, RECONCILED, SERVICES

LOOPBACK = "127.0.0.1"


@pytest.fixture
def blueprint(tmp_path: Path) -> Blueprint:
    ports = {name: 20000 + index for index, name in enumerate(PORTS)}
    return Blueprint(tmp_path, Path("/pipelines"), Options(), ports)


def test_services_wait_for_what_they_need_at_start_and_never_for_mlflow(blueprint: Blueprint) -> None:
    needs = blueprint.needs()
    assert all({"bucket", "topology"} <= needs[service] for service in SERVICES)
    assert all("migrations" in needs[service] for service in RECONCILED)
    assert [name for name, wanted in needs.items() if "mlflow" in wanted] == []


def test_the_predictor_starts_without_postgres(blueprint: Blueprint) -> None:
    assert not {"postgres", "migrations"} & blueprint.needs()["predictor"]


def test_everything_can_be_put_in_order(blueprint: Blueprint) -> None:
    assert {name for wave in waves(blueprint.needs()) for name in wave} == set(blueprint.needs())


def test_every_address_is_on_loopback(blueprint: Blueprint) -> None:
    assert [where for where in blueprint.addresses().values() if LOOPBACK not in where] == []
    assert {blueprint.environment(service)["HOST"] for service in SERVICES} == {LOOPBACK}


def test_every_service_verifies_pushes_meant_for_it(blueprint: Blueprint) -> None:
    for service in SERVICES:
        environ = blueprint.environment(service)
        assert environ["PUSH_AUTHENTICATION"] == "oidc"
        assert environ["PUSH_AUDIENCE"] == blueprint.addresses()[service]


def test_no_secret_stands_in_a_command_line(blueprint: Blueprint) -> None:
    secret = blueprint.postgres.password()
    assert len(secret) >= 32
    assert [part for component in blueprint.components().values() for part in component.argv if secret in part] == []


def test_the_predictor_has_two_workers_with_one_thread_of_openmp_each(blueprint: Blueprint) -> None:
    environ = blueprint.environment("predictor")
    assert (environ["WEB_CONCURRENCY"], environ["OMP_NUM_THREADS"], environ["THREADS"]) == ("2", "1", "16")


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_is_given_by_the_stack_or_inherited(blueprint: Blueprint, service: str) -> None:
    settings = {field.name.upper() for kind in SETTINGS[service] for field in msgspec.structs.fields(kind)}
    assert settings - set(blueprint.environment(service)) - set(WITHHELD) == set(INHERITED[service])


def test_what_reads_an_exported_variable_starts_anew_where_it_has_changed(
    blueprint: Blueprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SERVER", raising=False)
    before = _fingerprints(blueprint)
    monkeypatch.setenv("SERVER", "gunicorn")
    monkeypatch.setenv("TERM", "vt100")
    after = _fingerprints(blueprint)
    assert [name for name, fingerprint in after.items() if fingerprint != before[name]] == ["predictor"]


def test_what_the_stack_gives_is_not_inherited(blueprint: Blueprint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1")
    assert blueprint.components()["predictor"].environ["PORT"] == blueprint.environment("predictor")["PORT"]


def _fingerprints(blueprint: Blueprint) -> dict[str, str]:
    return {name: component.fingerprint for name, component in blueprint.components().items()}


def test_each_port_has_exactly_one_listener(blueprint: Blueprint) -> None:
    claimed = [port for component in blueprint.components().values() for port in component.ports]
    assert sorted(claimed) == sorted(PORTS)
