"""Splitting a file into records: each line that is not blank is in exactly one record, malformed or not."""

import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from etl.records import Batch, Records

WIDTH = 3
FIELDS = st.text(st.sampled_from('ab1 ,"\n\ré🙂'), max_size=6)
ROWS = st.lists(st.lists(FIELDS, min_size=WIDTH, max_size=WIDTH), max_size=12)
JUNK = st.sampled_from([b'"', b"\0", b"\xff", b",", b"\n", b"\r", b'a"b', b""])


def split(data: bytes, size: int = 5) -> Batch:
    whole = Batch()
    for batch in Records(data).batches(WIDTH, size):
        whole.lines += batch.lines
        whole.rows += batch.rows
        whole.malformed += batch.malformed
    return whole


def reasons(body: bytes) -> list[tuple[int, str]]:
    return [(bad.line, bad.reason) for bad in split(b"a,b,c\n" + body).malformed]


def written(rows: list[list[str]]) -> bytes:
    sink = io.StringIO(newline="")
    csv.writer(sink, quoting=csv.QUOTE_ALL).writerows([["a", "b", "c"], *rows])
    return sink.getvalue().encode()


@given(ROWS, st.integers(1, 20))
def test_whatever_a_csv_writer_wrote_is_read_back(rows: list[list[str]], size: int) -> None:
    found = split(written(rows), size)
    assert (found.rows, found.malformed) == (rows, [])


@example([], [(13, b"\r\r\n", 0)], 1)
@given(ROWS, st.lists(st.tuples(st.integers(0, 300), JUNK, st.integers(0, 3)), max_size=8), st.integers(1, 20))
def test_every_line_of_a_damaged_file_is_in_exactly_one_record(
    rows: list[list[str]], damages: list[tuple[int, bytes, int]], size: int
) -> None:
    data = written(rows)
    for place, junk, removed in damages:
        data = data[:place] + junk + data[place + removed :]
    records = Records(data)
    starts = [
        line
        for batch in records.batches(WIDTH, size)
        for line in [*batch.lines, *(bad.line for bad in batch.malformed)]
    ]
    covered = [line + offset for line in starts for offset in range(records.raw(line).count(b"\n") + 1)]
    lines = enumerate(data.split(b"\n"), 1)
    filled = {number for number, line in lines if number > 1 and line not in (b"", b"\r")}
    assert len(covered) == len(set(covered))
    assert filled <= set(covered)
    assert len(starts) <= records.count()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1,2", "expected 3 fields, got 2"),
        (b"1,2,3,4", "expected 3 fields, got 4"),
        (b'1,"2,3', "a quote is opened and not closed"),
        (b'1,2"2",3', "a quote stands where none may, or is not closed"),
        (b'1,"2"2,3"', "a quote is opened and not closed"),
        (b"1,\xff,3", "not valid UTF-8"),
        (b"1,\0,3", "holds a NUL byte"),
        (b"1,\r,3", "a carriage return stands within the line"),
    ],
)
def test_a_malformed_line_is_refused_alone(line: bytes, reason: str) -> None:
    assert reasons(b"1,2,3\n" + line + b'\n4,"5",6\n') == [(3, reason)]


def test_a_quote_that_a_later_quote_seems_to_close_costs_one_line() -> None:
    assert reasons(b'1,"2,3\n4,"5",6\n7,"8",9\n') == [(2, "a quote is opened and not closed")]


def test_quoted_line_ends_make_one_record_with_the_number_of_its_first_line() -> None:
    found = split(b'a,b,c\n1,"2\n2",3\n4,5,6\n')
    assert (found.lines, found.rows) == ([2, 4], [["1", "2\n2", "3"], ["4", "5", "6"]])


def test_blank_lines_windows_line_ends_and_a_byte_order_mark_are_no_data() -> None:
    data = b"\xef\xbb\xbfa,b,c\r\n\r\n1,2,3\r\n\n4,5,6"
    assert Records(data).header() == ["a", "b", "c"]
    assert split(data).rows == [["1", "2", "3"], ["4", "5", "6"]]
