"""The embedded stack survives what a laptop does to it, and leaves nothing behind."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from esteira_cli.stack import Options, Stack
from esteira_cli.stack.errors import ProcessFailed, StackError
from esteira_cli.stack.loopback import answers, get_json, post
from esteira_cli.stack.processes import HOME_MARK, NAME_MARK
from esteira_cli.stack.state import read_state

PAIR = {"postgres", "bucket"}


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack of the test's own, in a folder too deep for Unix sockets."""
    pipelines = tmp_path / "pipelines"
    pipelines.mkdir()
    stack = Stack(tmp_path / ("deep" * 20) / ("deeper" * 10) / "home", pipelines, Options(durable=False))
    yield stack
    stack.down(wipe=True)


def test_starting_twice_keeps_processes_and_addresses(own_stack: Stack) -> None:
    first = own_stack.up(only=PAIR)
    second = own_stack.up(only=PAIR)
    assert [(state.name, state.pid, state.address) for state in first] == [
        (state.name, state.pid, state.address) for state in second
    ]
    assert {state.state for state in second} == {"healthy"}


def test_a_restart_has_the_same_addresses_and_data(own_stack: Stack) -> None:
    own_stack.up(only=PAIR)
    before = own_stack.addresses()
    _execute(own_stack, "CREATE TABLE kept AS SELECT 42 AS answer")
    own_stack.down()
    assert {state.state for state in own_stack.state()} == {"down"}
    own_stack.up(only=PAIR)
    assert own_stack.addresses() == before
    assert _execute(own_stack, "SELECT answer FROM kept") == [(42,)]


def test_after_kill_only_the_dead_process_is_started_and_nothing_is_lost(own_stack: Stack) -> None:
    own_stack.up(only=PAIR)
    _execute(own_stack, "CREATE TABLE kept AS SELECT 42 AS answer")
    bucket = _pid(own_stack, "bucket")
    killed = own_stack.kill("postgres")
    assert _state(own_stack, "postgres") == "down"
    own_stack.up(only=PAIR)
    assert _pid(own_stack, "postgres") != killed
    assert _pid(own_stack, "bucket") == bucket
    assert _execute(own_stack, "SELECT answer FROM kept") == [(42,)]


def test_objects_survive_the_death_of_the_bucket(own_stack: Stack) -> None:
    own_stack.up(only=PAIR)
    _upload(own_stack, "kept.json", b'{"answer": 42}')
    own_stack.kill("bucket")
    own_stack.up(only=PAIR)
    assert get_json(f"{own_stack.addresses()['bucket']}/storage/v1/b/esteira-local/o/kept.json?alt=media") == {
        "answer": 42
    }


def test_orphans_of_a_killed_process_are_ended_before_it_starts_anew(own_stack: Stack) -> None:
    own_stack.up(only=PAIR)
    own_stack.kill("bucket")
    orphan, sibling = _marked_sleeper(own_stack, "bucket"), _marked_sleeper(own_stack, "etl")
    own_stack.up(only=PAIR)
    assert [_runs(orphan), _runs(sibling)] == [False, True]
    own_stack.down()
    assert not _runs(sibling)


def test_down_leaves_no_process_behind(own_stack: Stack) -> None:
    own_stack.up(only=PAIR)
    family = [process for pid in (_pid(own_stack, name) for name in PAIR) for process in _tree(pid)]
    assert len(family) > len(PAIR)
    own_stack.down()
    assert [process for process in family if _runs(process)] == []


def test_wiping_works_when_the_state_cannot_be_read(own_stack: Stack) -> None:
    own_stack.up(only=PAIR)
    family = [process for name in PAIR for process in _tree(_pid(own_stack, name))]
    (own_stack.home / "stack.json").write_text("{half")
    own_stack.down(wipe=True)
    assert [process for process in family if _runs(process)] == []
    assert not own_stack.home.exists()


def test_the_topology_outlives_the_emulator(own_stack: Stack) -> None:
    own_stack.up(only={"topology"})
    status = f"{own_stack.addresses()['pubsub-http']}/status"
    before = sorted(get_json(status)["subscriptions"])
    own_stack.kill("pubsub")
    own_stack.up(only={"pubsub"})
    assert "projects/esteira-local/subscriptions/raw-data-uploaded.etl" in before
    assert sorted(get_json(status)["subscriptions"]) == before


def test_a_stranger_under_a_recorded_pid_is_never_touched(own_stack: Stack) -> None:
    own_stack.up(only={"bucket"})
    own_stack.kill("bucket")
    stack_file = own_stack.home / "stack.json"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        stack_file.write_text(stack_file.read_text().replace(str(_recorded_pid(own_stack)), str(stranger.pid)))
        seen = _state(own_stack, "bucket")
        own_stack.down()
        survived = stranger.poll() is None
        stranger.kill()
    assert (seen, survived) == ("down", True)


def test_a_port_taken_by_a_stranger_is_reported_and_left_alone(own_stack: Stack) -> None:
    own_stack.up(only=PAIR)
    own_stack.down()
    port = int(own_stack.addresses()["bucket"].rsplit(":", 1)[1])
    told: list[tuple[str, str, str]] = []
    with socket.create_server(("127.0.0.1", port)):
        own_stack.up(only=PAIR, report=lambda *said: told.append(said))
    assert [(name, phase) for name, phase, detail in told if str(port) in detail] == [("bucket", "moved")]
    assert own_stack.addresses()["bucket"] != f"http://127.0.0.1:{port}"
    assert answers(f"{own_stack.addresses()['bucket']}/storage/v1/b/esteira-local")


def test_a_process_that_dies_at_start_is_named_with_the_end_of_its_log(own_stack: Stack) -> None:
    own_stack.up(only={"postgres"})
    own_stack.down()
    (own_stack.home / "postgres" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(ProcessFailed, match=r"(?s)postgres ended .*postgres\.log.*no_such_setting.*esteira up"):
        own_stack.up(only={"postgres"})


def test_another_configuration_restarts_what_it_concerns(own_stack: Stack) -> None:
    own_stack.up(only=PAIR)
    before = {name: _pid(own_stack, name) for name in PAIR}
    changed = Stack(own_stack.home, own_stack.home.parent, Options(durable=False, project="another-project"))
    changed.up(only=PAIR)
    assert _pid(changed, "postgres") == before["postgres"]
    assert _pid(changed, "bucket") != before["bucket"]


def test_two_starts_at_once_start_each_process_once(own_stack: Stack) -> None:
    own_stack.up(only={"bucket"})
    own_stack.down()
    command = [sys.executable, "-m", "esteira_cli.main", "up", "--state-dir", str(own_stack.home)]
    command += ["--pipelines", str(own_stack.home), "--only", "bucket"]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [racer.communicate(timeout=60)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert sum("starting" in text for text in said) == 1


def test_an_unknown_component_is_refused_with_the_known_ones(own_stack: Stack) -> None:
    with pytest.raises(StackError, match=r"no component 'postgers'.*postgres"):
        own_stack.up(only={"postgers"})


def test_mlflow_keeps_runs_in_postgres(mlflow_server: str) -> None:
    created = post(
        f"{mlflow_server}/api/2.0/mlflow/experiments/create",
        b'{"name": "first"}',
        {"Content-Type": "application/json"},
        timeout=30,
    )
    found = get_json(f"{mlflow_server}/api/2.0/mlflow/experiments/get-by-name?experiment_name=first", timeout=30)
    assert created == 200
    assert found["experiment"]["artifact_location"].startswith("gs://esteira-local/mlflow/")


def _execute(stack: Stack, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(stack.addresses()["database"].replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def _upload(stack: Stack, name: str, data: bytes) -> None:
    url = f"{stack.addresses()['bucket']}/upload/storage/v1/b/esteira-local/o?uploadType=media&name={name}"
    assert post(url, data, {"Content-Type": "application/json"}, timeout=10) == 200


def _state(stack: Stack, name: str) -> str:
    return next(state.state for state in stack.state() if state.name == name)


def _pid(stack: Stack, name: str) -> int:
    pid = next(state.pid for state in stack.state() if state.name == name)
    assert pid is not None
    return pid


def _recorded_pid(stack: Stack) -> int:
    return read_state(stack.home).processes["bucket"].pid


def _runs(process: psutil.Process) -> bool:
    """A zombie runs no more: it waits for somebody to collect it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _tree(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def _marked_sleeper(stack: Stack, name: str) -> psutil.Process:
    """An orphan of a component: its parent is gone already."""
    marks = {HOME_MARK: str(stack.home), NAME_MARK: name}
    command = ["/bin/sh", "-c", "sleep 60 > /dev/null 2>&1 & echo $!"]
    said = subprocess.run(command, env=os.environ | marks, check=True, capture_output=True, text=True).stdout
    return psutil.Process(int(said))
