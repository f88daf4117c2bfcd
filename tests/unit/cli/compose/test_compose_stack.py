from pathlib import Path

import msgspec
import pytest

from esteira_cli.compose import ComposeStack
from esteira_cli.compose.errors import ComposeError
from esteira_cli.compose.ports import PUBLISHED
from esteira_cli.compose.stack import project_name
from unit.cli.compose.docker import Docker, inspected

PORTS = {name: 20000 + number for number, name in enumerate(PUBLISHED)}


@pytest.fixture
def stack(docker: Docker, tmp_path: Path) -> ComposeStack:
    """A stack that was started before."""
    home, checkout = tmp_path / "home", tmp_path / "checkout"
    home.mkdir()
    checkout.mkdir()
    (checkout / "docker-compose.yml").touch()
    (home / "ports.json").write_bytes(msgspec.json.encode(PORTS))
    return ComposeStack(home, checkout)


def _told(docker: Docker, words: str) -> list[str]:
    return [call for call in docker.calls() if words in call]


def test_two_folders_have_two_projects() -> None:
    names = {project_name(Path("/a")), project_name(Path("/b"))}
    assert len(names) == 2
    assert all(name.startswith("esteira-") and name.islower() for name in names)


def test_a_client_on_the_host_reaches_the_containers_by_published_ports(stack: ComposeStack) -> None:
    environment = stack.environment("etl")
    assert environment["STORAGE_EMULATOR_HOST"] == f"http://127.0.0.1:{PORTS['bucket']}"
    assert (environment["GOOGLE_CLOUD_PROJECT"], environment["BUCKET"]) == ("proj", "pail")
    assert environment["DATABASE_URL"] == (
        f"postgresql+psycopg://esteira:p%40ss%2Fword@127.0.0.1:{PORTS['postgres']}/esteira"
    )


def test_a_stack_that_never_started_has_no_addresses(docker: Docker, tmp_path: Path) -> None:
    with pytest.raises(ComposeError, match="no containers were ever started"):
        ComposeStack(tmp_path / "new", tmp_path).addresses()


@pytest.mark.enable_socket
def test_up_waits_for_health_and_tells_of_it(docker: Docker, stack: ComposeStack) -> None:
    docker.contain(inspected("etl", health="healthy"), inspected("postgres", health="healthy"))
    told: list[tuple[str, str]] = []
    states = stack.up(report=lambda name, phase, _: told.append((name, phase)))
    assert [(state.name, state.state) for state in states] == [("etl", "healthy"), ("postgres", "healthy")]
    assert told == [("images", "starting"), ("images", "done"), ("etl", "healthy"), ("postgres", "healthy")]
    assert _told(docker, "up --detach") == [
        f"docker-compose -p {stack.project} up --detach --no-build --remove-orphans"
    ]


@pytest.mark.enable_socket
def test_a_container_that_fails_is_named_with_the_end_of_its_log(docker: Docker, stack: ComposeStack) -> None:
    docker.contain(inspected("etl", "restarting", restarts=3, exit_code=3), inspected("postgres"))
    docker.answer("docker logs", '{"message": "Settings are wrong", "severity": "ERROR"}\nplain\n')
    with pytest.raises(ComposeError) as caught:
        stack.up()
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("etl ended with code 3; the engine started it again 3 times. The end of `docker-compose")
    assert lines[1:] == [
        "  ERROR Settings are wrong",
        "  plain",
        "Correct the cause and run `esteira demo --stack compose` again.",
    ]


@pytest.mark.enable_socket
def test_images_that_cannot_be_built_are_told_with_what_compose_said(docker: Docker, stack: ComposeStack) -> None:
    docker.fail("docker-compose build", "Step 3/9 : RUN pip install\nno such package\n")
    with pytest.raises(ComposeError, match=r"could not be built; the end of .*compose\.log:\n  Step 3.*\n  no such"):
        stack.up()


def test_up_needs_a_checkout(docker: Docker, tmp_path: Path) -> None:
    with pytest.raises(ComposeError, match=r"there is no docker-compose\.yml in .*checkout of Esteira"):
        ComposeStack(tmp_path / "home", tmp_path).up()


def test_down_keeps_volumes_and_wipe_removes_them_with_the_folder(docker: Docker, stack: ComposeStack) -> None:
    stack.down()
    assert docker.calls()[-1] == f"docker-compose -p {stack.project} down --remove-orphans"
    assert stack.home.exists()
    stack.down(wipe=True)
    assert docker.calls()[-1] == f"docker-compose -p {stack.project} down --remove-orphans --volumes"
    assert not stack.home.exists()


def test_volumes_are_data(docker: Docker, stack: ComposeStack) -> None:
    assert not stack.has_data()
    docker.answer("docker volume", "p_postgres\n")
    assert stack.has_data()


def test_killing_what_does_not_run_is_refused(docker: Docker, stack: ComposeStack) -> None:
    docker.contain(inspected("etl", "exited"))
    with pytest.raises(ComposeError, match="etl does not run"):
        stack.kill("etl")
    with pytest.raises(ComposeError, match="no container 'other'; there are: etl"):
        stack.kill("other")
