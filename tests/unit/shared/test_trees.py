import contextlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esteira.archive import write_arrays
from esteira.exceptions import ReleaseRefused
from esteira.schema import Feature
from esteira.scoring import Metadata, digest
from esteira.trees import FORMAT, TreesModel, to_bytes

FEATURES = [Feature("n", "numeric"), Feature("c", "categorical", ["a", "b"])]
METADATA = Metadata(FORMAT, "binary", digest(FEATURES), "logit", [False, True])
ALL = 2**32 - 1


def _starts(*values: int) -> npt.NDArray[Any]:
    return np.array(values, dtype=np.uint32)


ARRAYS: dict[str, npt.NDArray[Any]] = {
    "threshold_start": _starts(0, 1, 1),
    "coded_start": _starts(0, 1, 5),
    "threshold": np.array([1.5]),
    "word": _starts(0),
    "mask": _starts(0b10),
    "coded": np.array([[ALL]] * 5, dtype=np.uint32),
    "tree_start": _starts(0, 1),
    "word_leaf": _starts(0),
    "leaf": np.array([-1.0, 1.0]),
    "outputs": np.array(1, dtype=np.uint32),
}


def _file(metadata: Metadata = METADATA, **changes: npt.NDArray[Any] | None) -> bytes:
    found = {name: array for name, array in (ARRAYS | changes).items() if array is not None}
    return to_bytes(found, metadata)


def test_scores_are_the_link_of_the_sums() -> None:
    model = TreesModel(_file(), "binary", FEATURES)
    matrix = model.encoder.encode_rows([(1.5, "a"), (2.0, None)])
    assert model.raw(matrix).tolist() == [[-1.0], [1.0]]
    assert model.score(matrix) == pytest.approx([0.26894142, 0.73105858])
    assert model.classes == [False, True]


def test_no_rows_have_no_scores() -> None:
    assert TreesModel(_file(), "binary", FEATURES).score(np.empty((0, 2))).shape == (0,)


def test_the_same_trees_are_written_with_the_same_bytes() -> None:
    assert _file() == _file()


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "cannot be read"),
        (b"no archive", "cannot be read"),
        (_file()[:-30], "cannot be read"),
        (write_arrays({**ARRAYS, "word": np.zeros(3)}), "metadata is damaged"),
        (write_arrays({**ARRAYS, "metadata": np.array("{}")}), "metadata is damaged"),
        (write_arrays({**ARRAYS, "metadata": np.array("\ud800")}), "metadata is damaged"),
        (write_arrays({**ARRAYS, "metadata": np.array('{"x":' + "[" * 100_000)}), "metadata is damaged"),
        (write_arrays({**ARRAYS, "metadata": np.zeros((9, 9))}), "metadata is damaged"),
        (_file(Metadata("2", "binary", digest(FEATURES), "logit", [])), "format is '2'"),
        (_file(Metadata(FORMAT, "regression", digest(FEATURES), "identity", [])), "task is 'regression'"),
        (_file(Metadata(FORMAT, "binary", digest(FEATURES[:1]), "logit", [])), "features is"),
        (_file(Metadata(FORMAT, "binary", digest(FEATURES), "log", [])), "link 'log' does not fit"),
        (_file(mask=None), "`mask` is missing"),
        (_file(leaf=np.zeros(2, dtype=np.float32)), "`leaf` is float32"),
        (_file(word=_starts(1)), "`word` do not fit"),
        (_file(threshold_start=_starts(0, 1), coded_start=_starts(0, 5)), "1 features and 1 outputs, the release 2"),
        (_file(tree_start=_starts(0, 0)), "`tree_start` do not fit"),
    ],
)
def test_a_damaged_or_odd_file_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ReleaseRefused, match=message):
        TreesModel(data, "binary", FEATURES)


def test_a_file_with_another_number_of_outputs_is_refused() -> None:
    metadata = Metadata(FORMAT, "multiclass", digest(FEATURES), "softmax", ["a", "b", "c"])
    with pytest.raises(ReleaseRefused, match="2 features and 1 outputs, the release 2 and 3"):
        TreesModel(_file(metadata), "multiclass", FEATURES)


def test_pickled_objects_are_neither_written_nor_read() -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        _file(leaf=np.array([{}], dtype=object))


@given(st.data())
def test_any_byte_may_be_damaged_and_the_file_is_loaded_or_refused(data: st.DataObject) -> None:
    whole = bytearray(_file())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ReleaseRefused):
        TreesModel(bytes(whole), "binary", FEATURES).score(np.array([[1.0, np.nan]]))
