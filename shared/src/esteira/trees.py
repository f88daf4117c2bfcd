"""A model of boosted trees that native code sums: the quick form of what model.onnx holds too.

The trainer writes it into the release as `trees.npz` where the learner is histogram boosting on the matrix itself; see
`trainer.export.leaves`, and `esteira_kernel` for how a row is scored.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from esteira.archive import read_arrays, write_arrays
from esteira.exceptions import ReleaseRefused
from esteira.schema import Feature
from esteira.scoring import Array, Metadata, Model, Task
from esteira_kernel.arrays import Arrays
from esteira_kernel.trees import TreeSums

FORMAT: Final = "1"
"""Of the files: of their arrays and what these mean."""
_METADATA: Final = "metadata"


class TreesModel(Model):
    """Boosted trees, ready to score: their sums have the bits of adding the trees up one after another."""

    FORMAT = FORMAT

    def __init__(self, data: bytes, task: Task, features: Sequence[Feature]) -> None:
        """Loads the trees and holds them against what the release says.

        Args:
            data: the `trees.npz`.
            task: what the release's pipeline does.
            features: the release's features, in the order of the matrix.

        Raises:
            ReleaseRefused: the file is damaged, of another format, or made for another task or other features.
        """
        arrays = read_arrays(data, "trees")
        super().__init__(_metadata(arrays.pop(_METADATA, None)), task, features)
        self.sums = _load(arrays)
        if (found := (self.sums.features, self.sums.outputs)) != (len(features), self.outputs):
            expected = f"{len(features)} and {self.outputs}"
            raise ReleaseRefused(f"the trees have {found[0]} features and {found[1]} outputs, the release {expected}")

    def raw(self, matrix: Array) -> Array:
        """Sums before the link, shape (rows, 1), or (rows, classes) for a multiclass model."""
        return self.sums.score(matrix)


def to_bytes(arrays: Arrays, metadata: Metadata) -> bytes:
    """Writes the `trees.npz`; the same content has the same bytes.

    Args:
        arrays: `esteira_kernel.arrays.ARRAYS`, by name.
        metadata: with this module's `FORMAT`.
    """
    return write_arrays({_METADATA: np.array(msgspec.json.encode(metadata).decode()), **arrays})


def _metadata(stored: npt.NDArray[Any] | None) -> Metadata:
    try:
        return msgspec.json.decode(str(stored), type=Metadata)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ReleaseRefused(f"the trees' metadata is damaged: {error}; release it again") from error


def _load(arrays: Arrays) -> TreeSums:
    try:
        return TreeSums(arrays)
    except (ValueError, MemoryError) as error:
        raise ReleaseRefused(f"the trees do not fit together: {error}; release it again") from error
