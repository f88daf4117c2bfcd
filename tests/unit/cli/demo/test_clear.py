"""A demo starts afresh, and never removes data that no demo brought."""

from pathlib import Path

import pytest

from esteira_cli.compose import ComposeStack
from esteira_cli.demo.command import MARK, clear
from esteira_cli.demo.playground import playground
from esteira_cli.demo.story import DemoFailed
from esteira_cli.stack import Stack
from unit.cli.compose.docker import Docker, install


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """A Docker that holds volumes of every project it is asked for."""
    folder = tmp_path / "fake"
    folder.mkdir()
    found = install(folder, monkeypatch)
    found.answer("docker volume", "data\n")
    return found


def test_the_two_kinds_have_two_folders(tmp_path: Path) -> None:
    embedded, compose = (
        playground(kind, tmp_path / "home", tmp_path / "pipelines") for kind in ("embedded", "compose")
    )
    assert isinstance(embedded, Stack)
    assert isinstance(compose, ComposeStack)
    assert embedded.home == tmp_path / "home"
    assert compose.home == tmp_path / "home-compose"


def test_containers_with_data_of_their_own_are_refused(docker: Docker, tmp_path: Path) -> None:
    stack = ComposeStack(tmp_path / "home", tmp_path)
    with pytest.raises(DemoFailed, match=rf"data of its own.*docker-compose -p {stack.project} down --volumes"):
        clear(stack)
    assert not (stack.home / MARK).exists()
    assert [call for call in docker.calls() if "-p" in call] == []


def test_containers_of_a_demo_are_wiped(docker: Docker, tmp_path: Path) -> None:
    stack = ComposeStack(tmp_path / "home", tmp_path)
    (stack.home / MARK / "month-04.csv").mkdir(parents=True)
    clear(stack)
    assert docker.calls()[-1].endswith("down --remove-orphans --volumes")
    assert list((stack.home / MARK).iterdir()) == []


def test_processes_with_data_of_their_own_are_refused(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "home")
    stack.home.mkdir()
    (stack.home / "stack.json").write_text("{}")
    with pytest.raises(DemoFailed, match=rf"data of its own.*esteira down --wipe --state-dir {stack.home}"):
        clear(stack)
    assert [path.name for path in stack.home.iterdir()] == ["stack.json"]


def test_an_empty_folder_is_marked_as_a_demo_s(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "home")
    clear(stack)
    assert (stack.home / MARK).is_dir()
