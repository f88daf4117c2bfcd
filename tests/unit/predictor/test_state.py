"""What the keeper tells, on a disk that may be full."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from predictor.state import Board, LogState, StateFolder


@contextmanager
def no_room() -> Iterator[None]:
    """No file may have a byte."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_could_not_be_told_leaves_the_old_word_and_no_files(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    state.write_log(LogState(published=1))
    for _ in range(5):
        with no_room(), pytest.raises(OSError, match="too large"):
            state.write_log(LogState(published=2))
    assert state.read_log() == LogState(published=1)
    assert len(list(tmp_path.iterdir())) <= 2
    state.write_log(LogState(published=3))
    state.write_board(Board(looked=True))
    assert (state.read_log().published, state.read_board().looked) == (3, True)
    assert {path.name for path in tmp_path.iterdir()} == {"log.json", "board.json"}
