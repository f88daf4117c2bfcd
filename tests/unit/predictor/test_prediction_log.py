import resource
import signal
from pathlib import Path

import msgspec
import pytest

from esteira.events import Prediction
from esteira.exceptions import Unavailable
from esteira.publisher import MAX_BYTES
from predictor import prediction_log, spool
from predictor.prediction_log import PredictionLog
from predictor.publishing import SpoolPublisher
from predictor.spool import SpoolWriter
from predictor.spool_reader import SpoolReader
from predictor.state import StateFolder
from spools import MOMENT, Mailbox, logged


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def spools(mailbox: Mailbox, tmp_path: Path) -> SpoolPublisher:
    return SpoolPublisher(mailbox, tmp_path / "spool")  # type: ignore[arg-type]


@pytest.fixture
def log(mailbox: Mailbox, tmp_path: Path) -> PredictionLog:
    return PredictionLog(mailbox, tmp_path / "spool", state=StateFolder(tmp_path))  # type: ignore[arg-type]


def test_what_is_written_is_what_the_event_says(log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox) -> None:
    (given,) = logged(1)
    log.add("shop", "v1", [given], 17)
    spools.publish()
    ((event),) = mailbox.events()
    assert (event.pipeline, event.model_version, event.microseconds, event.failures) == ("shop", "v1", 17, 0)
    (found,) = event.predictions
    assert found == Prediction(
        id=found.id, entity="ü|1", event_time=MOMENT, served_at=MOMENT, score=0.0, features=["a\n\t"] * 2
    )
    assert str(found.id) == given.id


def test_a_large_request_is_cut_and_counts_its_time_once(
    log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox
) -> None:
    log.add("shop", "v1", logged(1000), 33)
    spools.publish()
    assert [(len(e.predictions), e.microseconds) for e in mailbox.events()] == [(1000, 33)]
    assert log._writer.folder is not None
    assert (log._writer.folder / "00000001.log").read_bytes().count(b"\n") == 2


def test_a_record_is_no_larger_than_pubsub_takes(log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox) -> None:
    many = logged(500)
    large = [msgspec.structs.replace(one, features=["\x01" * 4000]) for one in many]
    log.add("shop", "v1", large)
    spools.publish()
    assert (mailbox.scores(), log.counts().lost) == ([one.score for one in many], 0)
    assert max(len(message.data) for message in mailbox.messages) < MAX_BYTES / 2


def test_failures_are_told_with_the_next_predictions(
    log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox
) -> None:
    log.add("shop", "v1", logged(1))
    log.count_failures("shop", "v1", 3)
    spools.publish()
    assert [(len(e.predictions), e.failures) for e in mailbox.events()] == [(1, 3)]


def test_what_became_of_a_workers_predictions_is_told(
    log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox, tmp_path: Path
) -> None:
    log.add("shop", "v1", logged(3))
    assert (log.counts().added, log.counts().pending) == (3, 3)
    spools.publish()
    log.add("shop", "v1", logged(2), strict=True)
    log.add("shop", "v1", logged(4))
    StateFolder(tmp_path).write_log(spools.state())
    found = log.counts()
    assert (found.added, found.pending, found.lost) == (9, 4, 0)
    assert (found.keeper.published, found.keeper.lost, found.keeper.waiting_bytes > 0) == (3, 0, True)


def test_a_full_disk_is_counted_and_predictions_go_on(
    log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox
) -> None:
    log.add("shop", "v1", logged(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
    try:
        for first in range(1, 5):
            log.add("shop", "v1", logged(1, first))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    log.add("shop", "v1", logged(1, 9))
    spools.publish()
    scores = mailbox.scores()
    assert (scores[0], scores[-1], log.lost) == (0, 9, 6 - len(scores))
    assert log.lost >= 2


def test_a_disk_that_is_full_from_the_beginning_is_counted_and_left_as_it_was(
    log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox, tmp_path: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        log.add("shop", "v1", logged(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert (log.lost, [*(tmp_path / "spool").iterdir()]) == (1, [])
    log.add("shop", "v1", logged(1, 9))
    spools.publish()
    assert mailbox.scores() == [9]


def test_a_full_disk_has_room_for_what_the_keeper_writes_down(log: PredictionLog) -> None:
    log.add("shop", "v1", logged(1))
    assert log._writer.folder is not None
    told = log._writer.folder / spool.PROGRESS
    before = told.stat()
    reader = SpoolReader(log._writer.folder)
    assert reader.take(10**9, 10**9) is not None
    reader.settle(10**12)
    assert (told.stat().st_size, told.stat().st_ino) == (before.st_size, before.st_ino)


def test_where_nobody_publishes_predictions_go_on_and_the_disk_does_not_fill(
    mailbox: Mailbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = PredictionLog(mailbox, tmp_path, spool_bytes=0)  # type: ignore[arg-type]
    log._writer = SpoolWriter(tmp_path, limit=-spool._MARGIN_BYTES + 3000, segment_bytes=1000)
    for first in range(100):
        log.add("shop", "v1", logged(1, first))
    spools = SpoolPublisher(mailbox, tmp_path)  # type: ignore[arg-type]
    assert spools.waiting() < 6000
    assert log.lost > 50
    assert [r.message for r in caplog.records] == ["predictions lost: not written to the spool"]
    spools.publish()
    assert mailbox.scores() == list(range(100 - log.lost))


def test_a_strict_log_publishes_before_it_returns(log: PredictionLog, mailbox: Mailbox, tmp_path: Path) -> None:
    log.add("shop", "v1", logged(1), strict=True)
    assert mailbox.scores() == [0]
    mailbox.errors = [Unavailable("away")]
    with pytest.raises(Unavailable):
        log.add("shop", "v1", logged(1, 1), strict=True)
    assert (log.added, log.counts().pending, (tmp_path / "spool").exists()) == (1, 0, False)


def test_losses_are_said_once_in_a_while(mailbox: Mailbox, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "spool").write_text("a file stands where the folder should")
    log = PredictionLog(mailbox, tmp_path / "spool")  # type: ignore[arg-type]
    for _ in range(5):
        log.add("shop", "v1", logged(2))
    assert (log.added, log.lost, len(caplog.records)) == (10, 10, 1)
    assert prediction_log.COMPLAIN_SECONDS > 1
