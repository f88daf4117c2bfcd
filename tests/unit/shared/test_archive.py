"""Whatever bytes lie where arrays should: they are read, or refused."""

import io
import zipfile
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esteira.archive import MAX_BYTES, read_arrays, write_arrays
from esteira.exceptions import ReleaseRefused

ARRAYS = {"splits": np.arange(12.0), "word": np.array("text"), "codes": np.array([[1, 2], [3, 4]], dtype=np.int32)}
GOOD = write_arrays(ARRAYS)
MUTATIONS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=4)


def member(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


MEMBER = member(ARRAYS["splits"])


def packed(content: bytes) -> bytes:
    """A file whose one member is this; its checksum is right."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("splits.npy", content)
    return buffer.getvalue()


def mutated(data: bytes, mutations: list[tuple[int, int, bytes]]) -> bytes:
    for place, removed, put in mutations:
        at = place % (len(data) + 1)
        data = data[:at] + put + data[at + removed :]
    return data


def check(data: bytes) -> None:
    with suppress(ReleaseRefused):
        assert all(isinstance(array, np.ndarray) for array in read_arrays(data, "trees").values())


def test_arrays_come_back_as_they_were() -> None:
    found = read_arrays(GOOD, "trees")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)


@given(MUTATIONS)
@settings(max_examples=300, deadline=None)
def test_a_mutated_file_is_read_or_refused(mutations: list[tuple[int, int, bytes]]) -> None:
    check(mutated(GOOD, mutations))


@given(MUTATIONS)
@settings(max_examples=300, deadline=None)
def test_a_mutated_array_is_read_or_refused(mutations: list[tuple[int, int, bytes]]) -> None:
    check(packed(mutated(MEMBER, mutations)))


@pytest.mark.parametrize(
    "header",
    [b"{'descr': '<f8', 'fortran_order': (", b"{'descr': '', 'fortran_order': False, 'shape': (1,), }", b"(" * 99],
)
def test_a_header_that_is_no_python_is_refused(header: bytes) -> None:
    with pytest.raises(ReleaseRefused, match="cannot be read"):
        read_arrays(packed(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header), "trees")


def test_a_file_that_unpacks_to_more_than_memory_is_refused_unread() -> None:
    size = MAX_BYTES + 1
    small = zlib.compress(bytes(1000))
    bomb = packed(small).replace(len(small).to_bytes(4, "little"), size.to_bytes(4, "little"))
    with pytest.raises(ReleaseRefused, match=f"holds {size} bytes"):
        read_arrays(bomb, "trees")


def test_an_array_that_says_to_be_larger_than_its_file_is_refused() -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (12,), }"
    assert header in MEMBER
    with pytest.raises(ReleaseRefused, match="cannot be read"):
        read_arrays(packed(MEMBER.replace(b"(12,), }     ", b"(10000000,),}", 1)), "trees")
