import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esteira.events import Message, Prediction, PredictionsServed, decode
from esteira.exceptions import BadInput, Unavailable
from predictor import prediction_log
from predictor.prediction_log import LoggedPrediction, PredictionLog
from predictor.spool import Header, SpoolReader, SpoolWriter, adopt

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


class Mailbox:
    """Takes messages as Pub/Sub does; raises what stands in `errors` first."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.errors: list[Exception | None] = []

    def publish(self, message: Message) -> None:
        if self.errors and (error := self.errors.pop(0)):
            raise error
        self.messages.append(message)

    def events(self) -> list[PredictionsServed]:
        return [decode(PredictionsServed, m.data, m.attributes) for m in self.messages]

    def scores(self, version: str = "v1") -> list[float]:
        return [p.score for event in self.events() if event.model_version == version for p in event.predictions]


def logged(count: int, first: int = 0, width: int = 2) -> list[LoggedPrediction]:
    return [
        LoggedPrediction(
            id=str(uuid4()), entity="ü|1", event_time=MOMENT, served_at=MOMENT, score=score, features=["a\n\t"] * width
        )
        for score in map(float, range(first, first + count))
    ]


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def log(mailbox: Mailbox, tmp_path: Path) -> Iterator[PredictionLog]:
    log = PredictionLog(mailbox, 60, tmp_path / "spool")  # type: ignore[arg-type]
    yield log
    log.close()


def folders(root: Path) -> list[str]:
    return [path.name for path in root.glob("*")]


def test_what_is_written_is_what_the_event_says(log: PredictionLog, mailbox: Mailbox) -> None:
    (given,) = logged(1)
    log.add("shop", "v1", [given], 17)
    log.flush()
    ((event),) = mailbox.events()
    assert (event.pipeline, event.model_version, event.microseconds, event.failures) == ("shop", "v1", 17, 0)
    (found,) = event.predictions
    assert found == Prediction(
        id=found.id, entity="ü|1", event_time=MOMENT, served_at=MOMENT, score=0.0, features=["a\n\t"] * 2
    )
    assert str(found.id) == given.id


def test_requests_are_published_together_in_their_order(log: PredictionLog, mailbox: Mailbox) -> None:
    for first in range(1200):
        log.add("shop", "v1", logged(1, first), 1)
    log.flush()
    assert mailbox.scores() == list(range(1200))
    assert [event.microseconds for event in mailbox.events()] == [500, 500, 200]
    assert (log.published, log.pending, log.lost) == (1200, 0, 0)


def test_a_large_request_is_cut_and_counts_its_time_once(log: PredictionLog, mailbox: Mailbox) -> None:
    log.add("shop", "v1", logged(1000), 33)
    log.flush()
    assert [(len(e.predictions), e.microseconds) for e in mailbox.events()] == [(500, 33), (500, 0)]


def test_wide_rows_make_smaller_messages(log: PredictionLog, mailbox: Mailbox) -> None:
    for first in range(40):
        log.add("shop", "v1", logged(1, first, width=20_000))
    log.flush()
    assert mailbox.scores() == list(range(40))
    assert max(len(message.data) for message in mailbox.messages) < prediction_log.BATCH_BYTES + 200_000


def test_two_releases_and_their_failures_are_told_apart(log: PredictionLog, mailbox: Mailbox) -> None:
    for first in range(100):
        log.add("shop", f"v{1 + first % 2}", logged(1, first))
    log.count_failures("shop", "v2", 3)
    log.count_failures("shop", "v3", 4)
    log.flush()
    assert mailbox.scores("v1") == list(range(0, 100, 2))
    assert mailbox.scores("v2") == list(range(1, 100, 2))
    assert {e.model_version: e.failures for e in mailbox.events()} == {"v1": 0, "v2": 3, "v3": 4}
    assert len({m.attributes["ce-id"] for m in mailbox.messages}) == 3


def test_while_pubsub_is_away_all_waits_and_is_sent_with_one_identity(log: PredictionLog, mailbox: Mailbox) -> None:
    mailbox.errors = [Unavailable("away")] * 3
    for first in range(3):
        log.add("shop", "v1", logged(1, first))
        with pytest.raises(Unavailable):
            log.flush()
    assert log.pending == 3
    log.flush()
    assert mailbox.scores() == [0, 1, 2]


def test_of_two_messages_only_the_one_that_failed_is_sent_again(log: PredictionLog, mailbox: Mailbox) -> None:
    log.add("shop", "v1", logged(1))
    log.add("shop", "v2", logged(1, 1))
    mailbox.errors = [None, Unavailable("away")]
    with pytest.raises(Unavailable):
        log.flush()
    log.flush()
    assert [e.model_version for e in mailbox.events()] == ["v1", "v2"]


def test_a_message_that_no_one_will_ever_take_does_not_stop_the_others(log: PredictionLog, mailbox: Mailbox) -> None:
    mailbox.errors = [BadInput([])]
    log.add("shop", "v1", logged(1))
    log.flush()
    log.add("shop", "v1", logged(1, 1))
    log.flush()
    assert (mailbox.scores(), log.lost, log.published, log.pending) == ([1], 1, 1, 0)


def test_an_orderly_end_leaves_nothing_behind(log: PredictionLog, mailbox: Mailbox, tmp_path: Path) -> None:
    log.add("shop", "v1", logged(1))
    assert folders(tmp_path / "spool")
    log.close()
    assert (mailbox.scores(), folders(tmp_path / "spool")) == ([0], [])


def test_what_an_ending_worker_could_not_publish_waits_for_the_next(mailbox: Mailbox, tmp_path: Path) -> None:
    mailbox.errors = [Unavailable("away")]
    ending = PredictionLog(mailbox, 60, tmp_path)  # type: ignore[arg-type]
    ending.add("shop", "v1", logged(2, 7))
    ending.close()
    assert mailbox.scores() == []
    take_over(PredictionLog(mailbox, 60, tmp_path))  # type: ignore[arg-type]
    assert (mailbox.scores(), folders(tmp_path)) == ([7, 8], [])


def take_over(log: PredictionLog) -> None:
    log._adopt()


KILLED = """
import os, signal, sys
from pathlib import Path
from predictor.prediction_log import PredictionLog
sys.path[:0] = [str(Path({here!r}).parent)]
from test_prediction_log import Mailbox, logged
class Dying(Mailbox):
    def publish(self, message):
        if {after} == 0: os.kill(os.getpid(), signal.SIGKILL)
        super().publish(message)
        os.write(1, message.attributes["ce-id"].encode() + b"\\n")
        os.kill(os.getpid(), signal.SIGKILL)
log = PredictionLog(Dying(), 60, Path({root!r}))
for first in range(700): log.add("shop", "v1", logged(1, first), 1)
log.flush()
"""


@pytest.mark.parametrize("after", [0, 1])
def test_a_killed_worker_loses_nothing_and_repeats_itself_word_for_word(
    mailbox: Mailbox, tmp_path: Path, after: int
) -> None:
    code = KILLED.format(here=__file__, after=after, root=str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)
    assert ended.returncode == -signal.SIGKILL
    take_over(PredictionLog(mailbox, 60, tmp_path))  # type: ignore[arg-type]
    assert mailbox.scores() == list(range(700))
    assert sum(event.microseconds for event in mailbox.events()) == 700
    told = ended.stdout.decode().split()
    assert told == [m.attributes["ce-id"] for m in mailbox.messages[:after]]
    assert folders(tmp_path) == []


def test_a_worker_that_takes_over_and_fails_leaves_all_for_another(mailbox: Mailbox, tmp_path: Path) -> None:
    code = KILLED.format(here=__file__, after=0, root=str(tmp_path))
    subprocess.run([sys.executable, "-c", code], check=False)
    mailbox.errors = [None, Unavailable("away")]
    with pytest.raises(Unavailable):
        take_over(PredictionLog(mailbox, 60, tmp_path))  # type: ignore[arg-type]
    take_over(PredictionLog(mailbox, 60, tmp_path))  # type: ignore[arg-type]
    assert mailbox.scores() == list(range(700))


def test_a_record_cut_short_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "left"
    folder.mkdir()
    (folder / "00000001.log").write_bytes(b'["shop","v1",1]\t{"x":1}\nnonsense\t1\n["shop","v1",1]\t{"x')
    batch = SpoolReader(folder).take(500, 1000)
    assert batch is not None
    assert [record.predictions for record in batch.records] == [b'{"x":1}', b""]


def test_a_living_worker_is_not_taken_over(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    writer.append(Header("shop", "v1", 1), b"{}")
    assert list(adopt(tmp_path)) == []
    assert writer.folder is not None
    assert writer.folder.exists()


def test_a_spool_over_its_limit_drops_the_oldest_and_counts_them(mailbox: Mailbox, tmp_path: Path) -> None:
    log = PredictionLog(mailbox, 60, tmp_path, spool_bytes=3000)  # type: ignore[arg-type]
    log._writer = SpoolWriter(tmp_path, segment_bytes=1000)
    mailbox.errors = [Unavailable("away")]
    for first in range(60):
        log.add("shop", "v1", logged(1, first))
    with pytest.raises(Unavailable):
        log.flush()
    log._trim()
    log.flush()
    assert log.lost > 20
    scores = mailbox.scores()
    assert len(scores) == log.published == 60 - log.lost
    under_way = next(at for at, score in enumerate(scores) if score != at)
    assert scores == [*range(under_way), *range(60 - (len(scores) - under_way), 60)]


def test_a_full_disk_is_counted_and_predictions_go_on(log: PredictionLog, mailbox: Mailbox) -> None:
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
    log.flush()
    scores = mailbox.scores()
    assert (scores[0], scores[-1], log.lost) == (0, 9, 6 - len(scores))
    assert log.lost >= 2


def test_a_strict_log_publishes_before_it_returns(log: PredictionLog, mailbox: Mailbox, tmp_path: Path) -> None:
    log.add("shop", "v1", logged(1), strict=True)
    assert mailbox.scores() == [0]
    mailbox.errors = [Unavailable("away")]
    with pytest.raises(Unavailable):
        log.add("shop", "v1", logged(1, 1), strict=True)
    assert (log.published, log.pending, folders(tmp_path / "spool")) == (1, 0, [])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 7), max_size=30), st.integers(1, 400), st.integers(1, 9), st.integers(1, 2000))
def test_every_record_is_read_once_however_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], segment: int, rows: int, size: int
) -> None:
    root = tmp_path_factory.mktemp("spool")
    writer = SpoolWriter(root, segment)
    for number, count in enumerate(sizes):
        writer.append(Header("shop", f"v{number}", count), b"x" * number)
    found, places, reader = [], set(), SpoolReader(writer.folder or root)
    while (batch := reader.take(rows, size)) is not None:
        found += [(record.header.model_version, record.predictions) for record in batch.records]
        assert batch.rows <= max(rows, *sizes)
        assert batch.place not in places
        places.add(batch.place)
    assert found == [(f"v{number}", b"x" * number) for number in range(len(sizes))]
