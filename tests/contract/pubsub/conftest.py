"""Fixtures of the Pub/Sub contract: the same cases run on our emulator and on Google's."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.pubsub.receiver import Answer, Receiver
from contract.pubsub.target import Ours, Process, Target, free_port, google_emulator_home

MISSING = (
    "Google's Pub/Sub emulator was not found: set PUBSUB_EMULATOR_HOME, or install the component pubsub-emulator "
    "of the Google Cloud CLI, and Java. The contract was held on our emulator alone."
)


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ours]:
    """One emulator of ours for all cases that neither kill it nor set faults."""
    emulator = Ours(tmp_path_factory.mktemp("pubsub"))
    yield emulator
    emulator.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Ours]:
    """An emulator of ours for one test alone."""
    emulator = Ours(tmp_path)
    yield emulator
    emulator.close()


@pytest.fixture(scope="session")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Google's emulator."""
    home = google_emulator_home()
    if home is None:
        pytest.skip(MISSING)
    port = free_port()
    command = [str(home / "bin" / "cloud-pubsub-emulator"), "--host=127.0.0.1", f"--port={port}"]
    process = Process(command, tmp_path_factory.mktemp("google") / "emulator.log")
    process.wait_for_port(port)
    target = Target("google", port)
    yield target
    target.close()
    process.stop()


@pytest.fixture(params=["esteira", "google"])
def target(request: pytest.FixtureRequest) -> Target:
    """Each of the two emulators in turn."""
    if request.param == "google":
        found: Target = request.getfixturevalue("google")
        return found
    ours: Ours = request.getfixturevalue("ours")
    return ours.target


@pytest.fixture
def receive() -> Iterator[Callable[[Answer], Receiver]]:
    """Makes push endpoints that are closed after the test."""
    receivers: list[Receiver] = []

    def make(answer: Answer) -> Receiver:
        receivers.append(Receiver(answer))
        return receivers[-1]

    yield make
    for receiver in receivers:
        receiver.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says aloud that half of the contract did not run."""
    skipped = terminalreporter.stats.get("skipped", [])
    if any(MISSING in str(report.longrepr) for report in skipped):
        terminalreporter.write_line(f"WARNING: {MISSING}", yellow=True, bold=True)
