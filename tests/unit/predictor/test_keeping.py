"""The keeper's threads: how they end, alone and with the process."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from esteira.exceptions import Unavailable
from predictor.keeping import Publishing
from predictor.prediction_log import PredictionLog
from predictor.publishing import SpoolPublisher
from predictor.state import StateFolder
from spools import Mailbox, logged


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def spools(mailbox: Mailbox, tmp_path: Path) -> Iterator[SpoolPublisher]:
    spools = SpoolPublisher(mailbox, tmp_path / "spool")  # type: ignore[arg-type]
    yield spools
    spools.close()


def publishing(spools: SpoolPublisher, folder: Path) -> Publishing:
    """Begun."""
    first = threading.Event()
    first.set()
    state = folder / "state"
    state.mkdir()
    thread = Publishing(spools, StateFolder(state), 60, first)
    thread.start()
    return thread


def test_a_keeper_does_not_wait_for_what_another_one_publishes(
    spools: SpoolPublisher, mailbox: Mailbox, tmp_path: Path
) -> None:
    log = PredictionLog(Mailbox(), tmp_path / "spool")  # type: ignore[arg-type]
    log.add("shop", "v1", logged(1))
    other = SpoolPublisher(mailbox, tmp_path / "spool")  # type: ignore[arg-type]
    other.publish()
    thread = publishing(spools, tmp_path)
    assert thread.end(5, orphaned=False) == 0
    assert not thread.is_alive()
    other.close()


def test_at_the_end_a_publisher_that_fails_at_once_is_asked_once_in_a_while(
    spools: SpoolPublisher, mailbox: Mailbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = PredictionLog(Mailbox(), tmp_path / "spool")  # type: ignore[arg-type]
    log.add("shop", "v1", logged(3))
    mailbox.errors = [Unavailable("away")] * 1000
    thread = publishing(spools, tmp_path)
    assert thread.end(2, orphaned=False) == 3
    assert 1 <= [record.message for record in caplog.records].count("prediction log waits") <= 3
    mailbox.errors = []
    thread.join(20)
    assert mailbox.scores() == [0, 1, 2]


FOLLOWING = """
import time
from esteira.exceptions import Unavailable
from predictor.keeping import Following
class Bucketless:
    def refresh(self): raise Unavailable("away")
class Deaf:
    def answer(self, names, error=""): pass
    def wait(self, seconds): raise OSError("no socket")
Following(Bucketless(), Deaf(), 1).start()
time.sleep(60)
"""


def test_a_process_whose_thread_fails_ends_to_be_started_again() -> None:
    ran = subprocess.run([sys.executable, "-c", FOLLOWING], capture_output=True, text=True, timeout=50, check=False)
    assert ran.returncode == 1
    assert "no socket" in ran.stderr
