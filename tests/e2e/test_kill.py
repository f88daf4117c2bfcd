"""Every process of the stack is killed, one after the other, while the demo plays: it ends well and nothing is lost.

A victim dies with all its workers, by SIGKILL, and `up` starts again what is down, as a supervisor would. Which process
dies in which act of the demo is fixed, so that each is hit at its work; when in the act, and in which order, is drawn.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from e2e import evidence as held
from e2e.evidence import Evidence, reopened, requested_entities
from e2e.played import Demo, Plan
from esteira_cli.stack import Stack
from esteira_cli.stack.processes import HOME_MARK

pytestmark = pytest.mark.timeout(420)

PLAN = Plan(first=4, last=5, requests=700)
SEED = 20130401
JOB = "training job"
ACTS = (
    ("history: checking rows", ("etl",)),
    ("training the first champion", (JOB, "tick", "mlflow")),
    ("first prediction", ("predictor",)),
    ("month 4: storing predictions", ("monitor",)),
    ("month 4: labels arrive", ("bucket",)),
    ("month 4: judging", ("postgres", "pubsub")),
    ("month 4: retraining", ("trainer",)),
    ("month  4 ", ("predictor", "etl")),
)
"""A line that the demo says, and who dies after it; never Pub/Sub just before the predictor, whose log then waits."""
LONGEST_PAUSE_S = 1.5
PATIENCE_S = 120.0
LONGEST_S = 240.0
CLIENTS = 8
"""So many requests the demo has under way: after a kill it sends them again, though some were answered and logged."""
FLUSH_S = 0.2
FAST = {"LEASE_SECONDS": "8", "LOG_FLUSH_SECONDS": str(FLUSH_S)}
"""The work of a dead process is free, and an answer is on its way to Pub/Sub, sooner than by default."""
UNFLUSHED = 100
"""More answers than that are not given in the time between two flushes."""


class Killer:
    """Kills processes of a running demo's stack."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self._stack = Stack(demo.home)
        self._random = random.Random(SEED)
        self.killed: Counter[str] = Counter()

    def play(self) -> None:
        """Goes through all acts."""
        for line, victims in ACTS:
            self._await_line(line)
            for name in self._random.sample(victims, len(victims)):
                time.sleep(self._random.uniform(0, LONGEST_PAUSE_S))  # when in the act it happens
                self._kill(name)
                self._stack.up()
                self.killed[name] += 1

    def _await_line(self, line: str) -> None:
        self._await(lambda: line in self.demo.said(), f"the demo to say {line!r}")

    def _kill(self, name: str) -> None:
        if name == JOB:
            self._await(lambda: bool(self._jobs()), "a training job")
            _signal_all(self._jobs(), signal.SIGKILL)
            return
        pid = next(state.pid for state in self._stack.state() if state.name == name)
        assert pid is not None, f"{name} does not run\n{self.demo.tell()}"
        workers = [child for child in psutil.Process(pid).children(recursive=True) if _session(child) == pid]
        _signal_all(workers, signal.SIGSTOP)  # none must see that its parent is gone, and flush
        self._stack.kill(name)
        _signal_all(workers, signal.SIGKILL)

    def _jobs(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if _is_job(process, self._stack.home)]

    def _await(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            told = f"waited for {what} after {dict(self.killed)}\n"
            assert self.demo.runs(), f"the demo ended early: {told}{self.demo.tell()}"
            assert time.monotonic() < deadline, f"{told}{self.demo.tell()}"
            time.sleep(0.05)


def _session(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return 0


def _signal_all(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def _is_job(process: psutil.Process, home: Path) -> bool:
    try:
        return "trainer.job" in process.cmdline() and process.environ().get(HOME_MARK) == str(home)
    except (psutil.Error, OSError):
        return False


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    """A demo that was played to its end while its processes were killed."""
    home = tmp_path_factory.mktemp("kill") / "home"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in FAST.items():
            patch.setenv(name, value)
        demo = Demo(home, PLAN)
        try:
            killer = Killer(demo)
            killer.play()
            assert demo.runs(), f"the demo ended before the last kill\n{demo.tell()}"
            demo.finish(LONGEST_S)
            yield killer
        finally:
            demo.stop()


@pytest.fixture(scope="module")
def evidence(killer: Killer) -> Iterator[Evidence]:
    """What the stack remembers once its services had the time to finish."""
    with reopened(killer.demo) as found:
        yield found


def test_every_process_was_killed(killer: Killer) -> None:
    names = {state.name for state in Stack(killer.demo.home).state()}
    assert set(killer.killed) == names | {JOB}


def test_the_demo_plays_all_months(killer: Killer) -> None:
    report = killer.demo.report()
    assert [(month.month, month.requests) for month in report.months] == [(n, PLAN.requests) for n in PLAN.months]
    assert "Traceback" not in killer.demo.said(), killer.demo.said()


def test_every_uploaded_row_is_ingested_once(evidence: Evidence) -> None:
    held.check_rows_are_ingested_once(evidence)
    held.check_newest_dataset_holds_all_rows(evidence)
    held.check_outcomes_are_the_labels(evidence)


def test_each_prediction_is_stored_once_but_those_a_killed_worker_had_not_flushed(
    killer: Killer, evidence: Evidence
) -> None:
    stored = Counter(entity for (entity,) in evidence.ask("SELECT entity FROM predictions"))
    sent = requested_entities(evidence.demo)
    kills = killer.killed["predictor"]
    assert (sent - stored).total() <= UNFLUSHED * kills
    assert (stored - sent).total() <= CLIENTS * kills
    held.check_histograms_count_each_prediction(evidence)


def test_no_dataset_is_trained_to_two_releases_or_promoted_twice(evidence: Evidence) -> None:
    held.check_ledger(evidence)
    held.check_report_tells_the_ledger(evidence)


def test_nothing_is_left_to_do(evidence: Evidence) -> None:
    assert evidence.left_to_do() == {}
