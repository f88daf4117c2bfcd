"""Files that are answered are read as etl reads those that train."""

import io
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esteira_cli.predict import records
from esteira_cli.predict.records import FileRefused, Malformed, Record, Records
from etl.records import Records as EtlRecords

PIECES = ['"', '""', ",", "\n", "\r\n", "a", "é", "1", "\r", "\0", "\udcff", '",', ',"', '"\n']
TEXTS = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


def read(data: bytes, width: int) -> tuple[list[tuple[int, list[str]]], list[tuple[int, str]]]:
    reader = Records(io.BytesIO(data))
    reader.header()
    found = list(reader.after_header(width))
    rows = [(one.line, list(one.values)) for one in found if isinstance(one, Record)]
    return rows, [(one.line, one.reason) for one in found if isinstance(one, Malformed)]


@given(TEXTS, st.integers(1, 3))
def test_the_same_lines_are_records_as_in_etl(text: str, width: int) -> None:
    data = b"h\n" + text.encode(errors="surrogateescape")
    batches = list(EtlRecords(data).batches(width, 7))
    rows = [pair for batch in batches for pair in zip(batch.lines, batch.rows, strict=True)]
    assert read(data, width) == (rows, [(one.line, one.reason) for batch in batches for one in batch.malformed])


@given(TEXTS)
def test_no_line_is_lost(text: str) -> None:
    data = b"h\n" + text.encode(errors="surrogateescape")
    reader = Records(io.BytesIO(data))
    reader.header()
    found = list(reader.after_header(2))
    kept = "".join(one.text if isinstance(one, Malformed) else "".join(map(str, one.values)) for one in found)
    for letter in "aé1":
        assert kept.count(letter) == text.count(letter)


def test_a_lost_quote_costs_its_line_however_long_the_file_is() -> None:
    lines = [b"a,b", b'1,"x', *(b"%d,y" % number for number in range(5000))]
    rows, malformed = read(b"\n".join(lines), 2)
    assert malformed == [(2, "a quote is opened and not closed")]
    assert len(rows) == 5000


class Counted(io.RawIOBase):
    """An endless file that counts what is read of it."""

    def __init__(self) -> None:
        self.lines = 0

    def readline(self, _: int | None = -1, /) -> bytes:
        self.lines += 1
        return b"1,2\n"


def test_no_more_is_read_than_is_wanted() -> None:
    file = Counted()
    reader = Records(cast("BinaryIO", file))
    reader.header()
    found = reader.after_header(2)
    assert [next(found).line for _ in range(10)] == list(range(2, 12))
    assert file.lines <= 12


def test_a_line_without_end_is_no_csv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 1 << 20)
    reader = Records(io.BytesIO(b"a,b\n1,2\n" + b"x" * (2 << 20)))
    reader.header()
    with pytest.raises(FileRefused, match="line 3 has more than 1 MiB"):
        list(reader.after_header(2))
