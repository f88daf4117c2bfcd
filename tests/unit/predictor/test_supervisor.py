"""Two processes that are kept: a keeper of a few lines, and a server that ends by itself."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

SUPERVISING = """
import sys, time
from pathlib import Path
from predictor.supervisor import Supervisor
def serve():
    while "started" not in Path({said!r}).read_text():
        time.sleep(0.01)
Path({said!r}).touch()
sys.exit(Supervisor([sys.executable, "-c", {keeper!r}, {said!r}], serve).run())
"""
KEEPING = """
import os, signal, sys
said = open(sys.argv[1], "ab+", 0)
{first}
said.write(b"started ")
told = sys.stdin.read()
said.seek(0)
{then}
said.write(b"told" if float(told) > 0 else b"late")
"""


def supervise(folder: Path, first: str = "", then: str = "") -> str:
    """What the keepers said.

    Args:
        first: what each does when it starts.
        then: what each does when it is told to end.
    """
    said = folder / "said"
    code = SUPERVISING.format(said=str(said), keeper=KEEPING.format(first=first, then=then))
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
    return said.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_no_signal_to_the_group_ends_the_keeper(tmp_path: Path, number: signal.Signals) -> None:
    assert supervise(tmp_path, first=f"os.kill(os.getpid(), {int(number)})") == "started told"


def test_a_keeper_that_dies_at_the_end_is_replaced(tmp_path: Path) -> None:
    die = "if said.read().count(b'started') == 1: os.kill(os.getpid(), signal.SIGKILL)"
    assert supervise(tmp_path, then=die) == "started started told"


def test_a_keeper_that_dies_at_the_end_each_time_is_given_up(tmp_path: Path) -> None:
    assert supervise(tmp_path, then="os.kill(os.getpid(), signal.SIGKILL)") == "started started "
