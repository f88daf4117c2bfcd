import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor import spool
from predictor.spool import Header, SpoolWriter, _write
from predictor.spool_reader import SpoolReader


def test_a_record_cut_short_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "00000001.log").write_bytes(b'["shop","v1",1]\t{"x":1}\nnonsense\t1\n["shop","v1",1]\t{"x')
    batch = SpoolReader(tmp_path).take(500, 1000)
    assert batch is not None
    assert [record.predictions for record in batch.records] == [b'{"x":1}', b""]


def test_what_is_taken_stays_under_way_until_it_is_settled(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    for _ in range(3):
        writer.append(Header("shop", "v1", 1), b"{}")
    assert writer.folder is not None
    reader = SpoolReader(writer.folder)
    first = reader.take(2, 1000)
    assert first is not None
    assert SpoolReader(writer.folder).take(500, 1000) == first == reader.take(500, 1000)
    reader.settle(2)
    again = SpoolReader(writer.folder)
    assert (again.settled, again.count(), again.waiting()) == (2, 1, reader.waiting())
    second = again.take(500, 1000)
    assert second is not None
    assert (second.rows, second.place) != (2, first.place)
    again.settle(1)
    assert again.take(500, 1000) is None
    writer.append(Header("shop", "v1", 1), b"{}")
    third = SpoolReader(writer.folder).take(500, 1000)
    assert third is not None
    assert (third.rows, again.waiting() > 0) == (1, True)


def test_a_write_that_a_signal_interrupts_is_tried_again() -> None:
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writes, bytes(4096))
    os.set_blocking(writes, True)
    heard: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append(len(os.read(reads, 4096))))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert (_write(writes, b"record"), heard) == (6, [4096])
    finally:
        signal.signal(signal.SIGALRM, before)
        os.close(reads)
        os.close(writes)


class Watched(PosixPath):
    """A folder where something may happen whenever it is listed."""

    listed: Callable[[], None]

    def glob(self, *arguments: Any, **more: Any) -> Iterator[Path]:
        """Does it, then lists."""
        self.listed()
        return super().glob(*arguments, **more)


@pytest.mark.parametrize("at", range(1, 4))
def test_a_record_written_just_before_its_segment_is_full_is_read(tmp_path: Path, at: int) -> None:
    writer = SpoolWriter(tmp_path, segment_bytes=30)
    writer.append(Header("shop", "v0", 1), b"")
    assert writer.folder is not None
    folder, left = Watched(writer.folder), [at]

    def listed() -> None:
        left[0] -= 1
        for number in range(1, 4) if left[0] == 0 else ():
            writer.append(Header("shop", f"v{number}", 1), b"")

    folder.listed = lambda: None
    reader = SpoolReader(folder)
    reader.take(500, 1000)
    reader.settle(1)
    folder.listed = listed
    found = []
    while left[0] > 0 or len(found) < 3:
        if (batch := reader.take(500, 1000)) is None:
            assert left[0] > 0
            continue
        found += [record.header.model_version for record in batch.records]
        reader.settle(batch.rows)
    assert found == ["v1", "v2", "v3"]


def test_what_could_not_be_settled_stays_under_way(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    for _ in range(3):
        writer.append(Header("shop", "v1", 1), b"{}")
    assert writer.folder is not None
    reader = SpoolReader(writer.folder)
    first = reader.take(2, 1000)
    away = writer.folder.rename(tmp_path / "away")  # no disk, for a while
    with pytest.raises(FileNotFoundError):
        reader.settle(2)
    away.rename(writer.folder)
    assert (reader.settled, reader.take(500, 1000), SpoolReader(writer.folder).take(500, 1000)) == (0, first, first)
    reader.settle(2)
    assert (reader.settled, reader.count(), SpoolReader(writer.folder).count()) == (2, 1, 1)


def test_what_is_counted_may_go_meanwhile(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, segment_bytes=1)
    for _ in range(2):
        writer.append(Header("shop", "v1", 1), b"{}")
    assert writer.folder is not None
    (writer.folder / "00000000.log").symlink_to(tmp_path / "gone")
    assert SpoolReader(writer.folder).count() == 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 7), max_size=30), st.integers(1, 400), st.integers(1, 9), st.integers(1, 2000))
def test_every_record_is_read_once_however_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], segment: int, rows: int, size: int
) -> None:
    root = tmp_path_factory.mktemp("spool")
    writer = SpoolWriter(root, segment_bytes=segment)
    for number, count in enumerate(sizes):
        writer.append(Header("shop", f"v{number}", count), b"x" * number)
    found, places, reader = [], set(), SpoolReader(writer.folder or root)
    assert reader.count() == sum(sizes)
    while (batch := reader.take(rows, size)) is not None:
        found += [(record.header.model_version, record.predictions) for record in batch.records]
        assert batch.rows <= max(rows, *sizes)
        assert batch.place not in places
        places.add(batch.place)
        reader.settle(batch.rows)
        assert reader.count() == sum(sizes) - reader.settled
    assert found == [(f"v{number}", b"x" * number) for number in range(len(sizes))]
    assert reader.waiting() == 0


@pytest.mark.parametrize("is_taken", [True, False])
def test_where_much_waits_who_writes_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_taken: bool) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if is_taken:
            reader.settle(taken.rows) if (taken := reader.take(1000, 1000)) else None

    monkeypatch.setattr(spool.time, "sleep", sleep)
    monkeypatch.setattr(spool, "GIVE_WAY_SECONDS", 0.01)
    monkeypatch.setattr(spool, "_MARGIN_BYTES", 1 << 20)
    writer, header = SpoolWriter(tmp_path, limit=4000, segment_bytes=1000), Header("shop", "v1", 1)
    writer.append(header, b"x" * 100)
    assert writer.folder is not None
    reader = SpoolReader(writer.folder)
    while not slept:
        before = spool.measure_spool(writer.folder)
        assert before < 5000
        writer.append(header, b"x" * 100)
    assert before > 3000
    for _ in range(50):
        writer.append(header, b"x" * 100)
    assert (spool.measure_spool(writer.folder) < 6000) == is_taken
    assert reader.count() + reader.settled > 70
