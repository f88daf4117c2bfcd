from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.spool import Header, SpoolWriter
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
