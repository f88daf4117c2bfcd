import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esteira_cli.stack.errors import StackBusy, StackError
from esteira_cli.stack.state import ProcessRecord, StackState, locked, read_state, replace_file, write_state

RECORD = ProcessRecord(pid=42, started=123.25, fingerprint="abc")


def test_a_folder_without_a_stack_has_an_empty_state(tmp_path: Path) -> None:
    assert read_state(tmp_path) == StackState()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    state = StackState(pipelines_dir="/p", options={"durable": False}, ports={"etl": 1}, processes={"etl": RECORD})
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state


@given(data=st.binary(max_size=200))
def test_a_state_that_cannot_be_read_is_refused_with_a_way_out(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / "stack.json").write_bytes(b"x" + data)
    with pytest.raises(StackError, match=r"stack\.json cannot be read.*esteira down --wipe"):
        read_state(home)


def test_replacing_a_file_leaves_no_draft_and_is_private(tmp_path: Path) -> None:
    replace_file(tmp_path / "secret", b"one")
    replace_file(tmp_path / "secret", b"two")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("secret", b"two")]
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_second_holder_gives_up_when_the_lock_stays_taken(tmp_path: Path) -> None:
    told: list[str] = []
    with (
        locked(tmp_path),
        pytest.raises(StackBusy, match=str(tmp_path)),
        locked(tmp_path, patience=0.0, when_busy=lambda: told.append("busy")),
    ):
        pytest.fail("both held the lock")
    assert told == ["busy"]


def test_a_second_holder_goes_on_once_the_lock_is_free(tmp_path: Path) -> None:
    waits, released = threading.Event(), threading.Event()

    def second() -> None:
        with locked(tmp_path, when_busy=waits.set):
            assert released.is_set()

    thread = threading.Thread(target=second)
    with locked(tmp_path):
        thread.start()
        assert waits.wait(10)
        released.set()
    thread.join(10)
    assert not thread.is_alive()
