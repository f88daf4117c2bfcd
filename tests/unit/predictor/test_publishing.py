"""What the keeper publishes of what workers spooled, killed where it may be."""

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from esteira.events import Message
from esteira.exceptions import BadInput, Unavailable
from predictor import publishing
from predictor.prediction_log import PredictionLog
from predictor.publishing import SpoolPublisher
from predictor.spool import SpoolWriter, find_spools, lock_root, lock_spool
from predictor.spool_reader import SpoolReader
from spools import Mailbox, logged

TESTS = Path(__file__).parents[2]


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def spools(mailbox: Mailbox, tmp_path: Path) -> Iterator[SpoolPublisher]:
    spools = SpoolPublisher(mailbox, tmp_path, spool_bytes=3000)  # type: ignore[arg-type]
    yield spools
    spools.close()


@pytest.fixture
def log(tmp_path: Path) -> PredictionLog:
    return PredictionLog(Mailbox(), tmp_path)  # type: ignore[arg-type]


def test_requests_are_published_together_in_their_order(
    log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox
) -> None:
    rows, rest = publishing.BATCH_ROWS // 3, 7
    for first in range(0, 6 * rows, rows):
        log.add("shop", "v1", logged(rows, first, width=1), 1)
    log.add("shop", "v1", logged(rest, 6 * rows), 1)
    assert spools.publish()
    assert mailbox.scores() == list(range(6 * rows + rest))
    sizes = [len(event.predictions) for event in mailbox.events()]
    assert max(len(message.data) for message in mailbox.messages) < publishing.BATCH_BYTES + 1000
    assert (max(sizes) <= publishing.BATCH_ROWS, len(sizes) <= 3) == (True, True)
    assert (spools.published, spools.waiting(), spools.lost) == (sum(sizes), 0, 0)


def test_what_is_too_much_for_one_call_is_told_so_that_the_next_follows_at_once(
    log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "ROUNDS", 2)
    for first in range(3):
        log.add("shop", "v1", logged(1, first, width=100_000))
    told = []
    while not spools.publish():
        told.append((spools.is_behind, len(mailbox.messages)))
    assert told == [(True, 2)]
    assert not spools.is_behind
    assert mailbox.scores() == [0, 1, 2]


def test_wide_rows_make_smaller_messages(log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox) -> None:
    for first in range(40):
        log.add("shop", "v1", logged(1, first, width=20_000))
    spools.publish()
    assert mailbox.scores() == list(range(40))
    assert max(len(message.data) for message in mailbox.messages) < publishing.BATCH_BYTES + 200_000


def test_two_releases_and_their_failures_are_told_apart(
    log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox
) -> None:
    for first in range(100):
        log.add("shop", f"v{1 + first % 2}", logged(1, first))
    log.count_failures("shop", "v2", 3)
    log.count_failures("shop", "v3", 4)
    spools.publish()
    assert mailbox.scores("v1") == list(range(0, 100, 2))
    assert mailbox.scores("v2") == list(range(1, 100, 2))
    assert {e.model_version: e.failures for e in mailbox.events()} == {"v1": 0, "v2": 3, "v3": 4}
    assert len({m.attributes["ce-id"] for m in mailbox.messages}) == 3


def test_while_pubsub_is_away_all_waits_and_is_sent_once(
    log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox
) -> None:
    mailbox.errors = [Unavailable("away")] * 3
    for first in range(3):
        log.add("shop", "v1", logged(1, first))
        with pytest.raises(Unavailable):
            spools.publish()
    assert spools.count_waiting() == 3
    spools.publish()
    assert mailbox.scores() == [0, 1, 2]
    assert spools.count_waiting() == 0


def test_of_two_messages_only_the_one_that_failed_is_sent_again(
    log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox
) -> None:
    log.add("shop", "v1", logged(1))
    log.add("shop", "v2", logged(1, 1))
    mailbox.errors = [None, Unavailable("away")]
    with pytest.raises(Unavailable):
        spools.publish()
    spools.publish()
    assert [e.model_version for e in mailbox.events()] == ["v1", "v2"]


def test_a_message_that_no_one_will_ever_take_does_not_stop_the_others(
    log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox
) -> None:
    mailbox.errors = [BadInput([])]
    log.add("shop", "v1", logged(1))
    spools.publish()
    log.add("shop", "v1", logged(1, 1))
    spools.publish()
    assert (mailbox.scores(), spools.lost, spools.published) == ([1], 1, 1)


def test_of_a_batch_only_what_was_refused_is_lost(log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox) -> None:
    mailbox.errors = [BadInput([])]
    log.add("shop", "v1", logged(1))
    log.add("shop", "v2", logged(3))
    assert spools.publish()
    assert (mailbox.scores("v2"), spools.lost, spools.published) == ([0, 1, 2], 1, 3)


def test_a_spool_over_its_limit_drops_the_oldest_and_counts_them(
    log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox, tmp_path: Path
) -> None:
    log._writer = SpoolWriter(tmp_path, segment_bytes=1000)
    mailbox.errors = [Unavailable("away")]
    for first in range(60):
        log.add("shop", "v1", logged(1, first))
    with pytest.raises(Unavailable):
        spools.publish()
    spools.publish()
    assert spools.lost > 20
    scores = mailbox.scores()
    assert len(scores) == spools.published == 60 - spools.lost
    assert list(spools.state().settled.values()) == [60]
    under_way = next(at for at, score in enumerate(scores) if score != at)
    assert scores == [*range(under_way), *range(60 - (len(scores) - under_way), 60)]


def test_workers_take_turns(spools: SpoolPublisher, mailbox: Mailbox, tmp_path: Path) -> None:
    busy, quiet = (PredictionLog(Mailbox(), tmp_path) for _ in range(2))  # type: ignore[arg-type]
    busy.add("shop", "v1", logged(3000))
    quiet.add("shop", "v2", logged(1))
    spools.publish()
    assert "v2" in [event.model_version for event in mailbox.events()][:2]


def test_the_batches_of_workers_are_under_way_together(tmp_path: Path) -> None:
    class Slow(Mailbox):
        both = threading.Barrier(2, timeout=20)

        def publish(self, message: Message) -> None:
            self.both.wait()
            super().publish(message)

    mailbox = Slow()
    workers = [PredictionLog(Mailbox(), tmp_path) for _ in range(2)]  # type: ignore[arg-type]
    for worker in workers:
        worker.add("shop", "v1", logged(2))
    spools = SpoolPublisher(mailbox, tmp_path)  # type: ignore[arg-type]
    assert spools.publish()
    spools.close()
    assert len(mailbox.messages) == 2


def test_where_one_worker_cannot_be_published_the_other_is(
    spools: SpoolPublisher, mailbox: Mailbox, tmp_path: Path
) -> None:
    workers = [PredictionLog(Mailbox(), tmp_path) for _ in range(2)]  # type: ignore[arg-type]
    for first, worker in enumerate(workers):
        worker.add("shop", "v1", logged(1, first))
    mailbox.errors = [Unavailable("away"), None]
    with pytest.raises(Unavailable):
        spools.publish()
    assert (len(mailbox.messages), spools.published, spools.count_waiting()) == (1, 1, 1)
    assert spools.publish()
    assert sorted(mailbox.scores()) == [0, 1]


def test_the_spool_of_a_worker_goes_with_its_worker(
    log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox, tmp_path: Path
) -> None:
    leave_behind(tmp_path, 3)
    log.add("shop", "v2", logged(1))
    assert len(find_spools(tmp_path)) == 2
    spools.publish()
    assert find_spools(tmp_path) == [log._writer.folder]
    assert (mailbox.scores(), mailbox.scores("v2"), spools.has_living()) == ([0, 1, 2], [0], True)


def test_a_spool_is_kept_while_its_worker_may_add_to_it(tmp_path: Path) -> None:
    log = PredictionLog(Mailbox(), tmp_path)  # type: ignore[arg-type]
    log.add("shop", "v1", logged(1))
    (folder,) = find_spools(tmp_path)
    assert lock_spool(folder) is None


def test_two_keepers_publish_nothing_twice(
    log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox, tmp_path: Path
) -> None:
    log.add("shop", "v1", logged(2))
    other = SpoolPublisher(mailbox, tmp_path)  # type: ignore[arg-type]
    assert (spools.publish(), other.publish(), spools.is_mine, other.is_mine) == (True, False, True, False)
    log.add("shop", "v1", logged(1, 2))
    assert not other.publish()
    spools.close()
    assert other.publish()
    other.close()
    assert mailbox.scores() == [0, 1, 2]


def test_a_keeper_that_waited_begins_where_the_other_one_ended(
    log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox, tmp_path: Path
) -> None:
    log.add("shop", "v1", logged(2))
    assert spools.publish()
    waiting = SpoolPublisher(mailbox, tmp_path)  # type: ignore[arg-type]
    assert (waiting.publish(), waiting.waiting(), waiting.state().waiting_bytes) == (False, 0, 0)
    log.add("shop", "v1", logged(1, 2))
    assert spools.publish()
    spools.close()
    log.add("shop", "v1", logged(1, 3))
    assert waiting.publish()
    waiting.close()
    assert mailbox.scores() == [0, 1, 2, 3]
    assert waiting.published == 1
    assert len({message.attributes["ce-id"] for message in mailbox.messages}) == 3


def test_what_is_no_spool_is_left_alone(
    log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox, tmp_path: Path
) -> None:
    (tmp_path / "lost+found").mkdir(0o000)
    (tmp_path / "0").mkdir()
    (tmp_path / "x.log").touch()
    log.add("shop", "v1", logged(2))
    assert log._writer.folder is not None
    (log._writer.folder / "x.log").touch()
    assert spools.publish()
    assert (mailbox.scores(), spools.has_living(), spools.has_ended()) == ([0, 1], True, False)
    assert {path.name for path in tmp_path.iterdir()} >= {"lost+found", "0", "x.log"}


def test_a_spool_that_cannot_be_read_does_not_hold_up_the_others(
    log: PredictionLog,
    spools: SpoolPublisher,
    mailbox: Mailbox,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = tmp_path / ("0" * 32)
    (broken / "sent").mkdir(parents=True)
    (broken / "lock").symlink_to("lock")
    for first in range(0, 1000, 500):
        log.add("shop", "v1", logged(500, first))
    for _ in range(2):
        assert not spools.publish()
    assert mailbox.scores() == list(range(1000))
    assert (spools.waiting(), spools.count_waiting(), spools.state().published, spools.has_ended()) == (
        0,
        0,
        1000,
        False,
    )
    told = [record for record in caplog.records if record.message == "spool failed"]
    assert [getattr(record, "spool", "") for record in told] == [str(broken)] * 2
    (broken / "sent").rmdir()
    (broken / "lock").unlink()
    assert spools.publish()


def test_what_could_not_be_settled_is_not_sent_or_counted_again(
    log: PredictionLog, spools: SpoolPublisher, mailbox: Mailbox
) -> None:
    class Breaking(Mailbox):
        """While a message is on its way the place of its spool's progress is taken."""

        def publish(self, message: Message) -> None:
            super().publish(message)
            assert log._writer.folder is not None
            (log._writer.folder / "sent").rename(log._writer.folder / "kept")
            (log._writer.folder / "sent").mkdir()

    breaking = Breaking()
    spools._publisher = breaking  # type: ignore[assignment]
    log.add("shop", "v1", logged(2))
    assert not spools.publish()
    assert not spools.publish()
    assert log._writer.folder is not None
    (log._writer.folder / "sent").rmdir()
    (log._writer.folder / "kept").rename(log._writer.folder / "sent")
    assert spools.publish()
    assert (breaking.scores(), spools.published, spools.count_waiting()) == ([0, 1], 2, 0)


def test_the_lock_of_a_keeper_goes_with_its_process(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from predictor.spool import lock_root; print(lock_root(Path({str(tmp_path)!r})))"
    held = lock_root(tmp_path)
    assert held is not None
    ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert ran.stdout == "None\n"
    held.free()
    subprocess.run([sys.executable, "-c", code], check=True)
    again = lock_root(tmp_path)
    assert again is not None
    again.free()


LEAVING = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from predictor.prediction_log import PredictionLog
from spools import Mailbox, logged
log = PredictionLog(Mailbox(), Path({root!r}))
for first in range({rows}): log.add("shop", "v1", logged(1, first, width=200), 1)
"""


def leave_behind(root: Path, rows: int) -> Path:
    """The spool of a worker that has ended."""
    subprocess.run([sys.executable, "-c", LEAVING.format(tests=str(TESTS), root=str(root), rows=rows)], check=True)
    return find_spools(root)[-1]


KEEPING = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from predictor.publishing import SpoolPublisher
from spools import Mailbox
steps = 0
def step(name, arguments):
    global steps
    if name in ("open", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree") and {root!r} in str(arguments[0]):
        steps += 1
        if steps == {kill_at}: os.kill(os.getpid(), signal.SIGKILL)
class Telling(Mailbox):
    def publish(self, message):
        step("open", [{root!r}])
        os.write(1, message.attributes["ce-id"].encode() + b" " + message.data.hex().encode() + b"\\n")
        step("open", [{root!r}])
sys.addaudithook(step)
SpoolPublisher(Telling(), Path({root!r})).publish()
os.write(2, str(steps).encode())
"""


def keep(root: Path, kill_at: int) -> tuple[int, list[str], int]:
    """Publishes in a process that dies at a step; gives its status, what it sent, and how many steps there were."""
    code = KEEPING.format(tests=str(TESTS), root=str(root), kill_at=kill_at)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout.split("\n")[:-1], int(ran.stderr or 0)


def test_a_keeper_killed_at_any_step_loses_nothing_and_repeats_itself_word_for_word(tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    leave_behind(left, 700)
    whole = shutil.copytree(left, tmp_path / "whole")
    status, wanted, steps = keep(whole, 0)
    assert (status, len(wanted), find_spools(whole)) == (0, 2, [])
    assert steps > 12
    for kill_at in range(1, steps + 1):
        root = shutil.copytree(left, tmp_path / f"at-{kill_at}")
        status, first, _ = keep(root, kill_at)
        assert status == -signal.SIGKILL
        status, second, _ = keep(root, 0)
        assert (status, [path.name for path in root.iterdir()]) == (0, [".keeper"])
        assert sorted({*first, *second}) == sorted(wanted), kill_at
        assert len(second) == len(set(second))


def test_a_keeper_that_fails_leaves_all_for_another(mailbox: Mailbox, tmp_path: Path) -> None:
    leave_behind(tmp_path, 700)
    mailbox.errors = [None, Unavailable("away")]
    failing = SpoolPublisher(mailbox, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        failing.publish()
    failing.close()
    other = SpoolPublisher(mailbox, tmp_path)  # type: ignore[arg-type]
    assert other.publish()
    other.close()
    assert mailbox.scores() == list(range(700))


def test_a_folder_of_an_older_version_goes_on_where_it_was(mailbox: Mailbox, tmp_path: Path) -> None:
    folder = leave_behind(tmp_path, 3)
    batch = SpoolReader(folder).take(1, 1 << 20)
    assert batch is not None
    segment, begin, end, _ = (folder / "sent").read_text().split()
    (folder / "sent").write_text(f"{segment} {begin} {end}\n")
    spools = SpoolPublisher(mailbox, tmp_path)  # type: ignore[arg-type]
    spools.publish()
    spools.close()
    assert mailbox.messages[0].attributes["ce-id"] == str(batch.event_id("shop", "v1"))
    assert mailbox.scores() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == [".keeper"]
