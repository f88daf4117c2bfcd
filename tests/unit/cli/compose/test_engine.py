import re
from pathlib import Path

import pytest

from esteira_cli.compose.engine import Engine, compose_command
from esteira_cli.compose.errors import ComposeError, EngineMissing
from unit.cli.compose.docker import Docker, inspected

NO_DAEMON = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n"


@pytest.fixture
def engine(docker: Docker, tmp_path: Path) -> Engine:
    """A project on the fake Docker."""
    return Engine("proj", tmp_path, tmp_path / "compose.log")


def test_the_plugin_is_preferred(docker: Docker) -> None:
    (docker.folder / "plugin").touch()
    assert compose_command() == ("docker", "compose")


def test_without_the_plugin_docker_compose_is_used(docker: Docker) -> None:
    assert compose_command() == ("docker-compose",)


def test_without_compose_the_message_says_what_to_install(docker: Docker) -> None:
    docker.remove("docker-compose")
    with pytest.raises(EngineMissing, match=r"neither .* works: install the Compose plugin .*embedded stack"):
        compose_command()


def test_without_an_engine_the_message_says_what_to_start(docker: Docker) -> None:
    (docker.folder / "docker version").unlink()
    docker.fail("docker version", NO_DAEMON)
    with pytest.raises(EngineMissing, match=r"no Docker engine answers \(Cannot connect .*\): start it.*systemctl"):
        compose_command()


def test_without_docker_the_message_says_what_to_install(docker: Docker) -> None:
    docker.remove("docker")
    with pytest.raises(EngineMissing, match=r"`docker` is not installed: install Docker Engine"):
        compose_command()


def test_every_call_names_the_project(docker: Docker, engine: Engine) -> None:
    engine.call("down", "--volumes")
    assert docker.calls()[-1] == "docker-compose -p proj down --volumes"


def test_a_call_that_fails_is_told_with_its_last_words(docker: Docker, engine: Engine) -> None:
    docker.fail("docker-compose down", "one\ntwo\nthree\nfour\nfive\nsix\n")
    expected = "`docker-compose -p proj down` failed with code 3:\n  two\n  three\n  four\n  five\n  six"
    with pytest.raises(ComposeError, match=f"^{re.escape(expected)}$"):
        engine.call("down")


def test_only_the_project_s_own_containers_are_listed(docker: Docker, engine: Engine) -> None:
    docker.contain(inspected("etl"), inspected("trainer", "exited", exit_code=137))
    found = engine.containers()
    assert {name: container.status for name, container in found.items()} == {"etl": "running", "trainer": "exited"}
    filters = "--filter label=com.docker.compose.project=proj --filter label=com.docker.compose.oneoff=False"
    assert docker.calls()[-2:] == [f"docker ps --all --quiet {filters}", "docker inspect id-etl id-trainer"]


def test_without_containers_nothing_is_inspected(docker: Docker, engine: Engine) -> None:
    assert engine.containers() == {}
    assert len(docker.calls()) == 1


def test_a_container_is_killed_by_its_id(docker: Docker, engine: Engine) -> None:
    docker.contain(inspected("etl"))
    engine.kill(engine.containers()["etl"])
    assert docker.calls()[-1] == "docker kill --signal KILL id-etl"
