"""What refuses a file whole."""

import gzip

import pytest

from esteira.schema import Column
from etl.source import FileRefused, check_header, unpack

COLUMNS = [Column(name=name, type="string") for name in ("a", "b", "c")]
LIMIT = 1000


def refusal(data: bytes, name: str = "raw/p/1.csv") -> str:
    with pytest.raises(FileRefused) as refused:
        check_header(unpack(name, data, LIMIT), COLUMNS)
    return str(refused.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is empty"),
        (b" \r\n\n", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0", "a PNG image"),
        (b"PAR1\x15\x04", "a Parquet file"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\n<!DOCTYPE html><html>", "HTML"),
        ("a,b,c\n".encode("utf-16"), "UTF-16"),
        (b"\xe9,b,c\n", "line 1 not valid UTF-8"),
        (b"a,\0,c\n", "line 1 holds a NUL byte"),
        (b"a,b,c\r1,2,3\r", "a carriage return stands within the line"),
        (b'a,"b,c\n', "line 1 a quote"),
        (b"a,b,c,d\n", "has unknown column 'd'"),
        (b"a,c\n", "lacks column 'b'"),
        (b"a,b,b,c\n", "repeats column 'b'"),
        (b"a;b;c\n", "is the delimiter a comma?"),
        (b"A,b,c\n", "has unknown column 'A'"),
    ],
)
def test_a_file_that_is_no_csv_of_the_pipeline_is_refused_with_what_it_is(data: bytes, said: str) -> None:
    assert said in refusal(data)


def test_columns_may_stand_in_any_order() -> None:
    assert check_header(b"c,a,b\n1,2,3\n", COLUMNS) == ["c", "a", "b"]


def test_gzip_is_undone_whatever_the_name() -> None:
    assert unpack("raw/p/1.csv", gzip.compress(b"a,b,c\n"), LIMIT) == b"a,b,c\n"


def test_a_damaged_gzip_is_refused() -> None:
    assert "damaged gzip" in refusal(gzip.compress(b"a,b,c\n" * 50)[:-10])


def test_a_name_that_promises_gzip_must_keep_it() -> None:
    assert "it is no gzip file" in refusal(b"a,b,c\n", "raw/p/1.csv.gz")


def test_a_small_gzip_of_a_huge_file_is_refused_without_unpacking_it_whole() -> None:
    assert "more than 1000 bytes" in refusal(gzip.compress(bytes(10_000_000)))
