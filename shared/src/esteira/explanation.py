"""Why a row scores as it does: the exact Shapley value of every feature, with NumPy alone.

The raw score of a row, before the link (log-odds of a classifier), is the base value plus the contributions of its
features. The trainer writes what that takes into the release as `explanation.npz`; see `trainer.export.explanation`.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from esteira.archive import read_arrays, write_arrays
from esteira.attribution import LinearMethod, TreeMethod
from esteira.exceptions import ReleaseRefused
from esteira.schema import Feature
from esteira.scoring import Array, digest

FORMAT: Final = "1"
"""The format of the file; a file of another one is refused."""

Method = LinearMethod | TreeMethod
METHODS: Final[dict[str, type[Method]]] = {"linear": LinearMethod, "trees": TreeMethod}

_NANS: Final = {"missing", "code_terms"}
_INFINITIES: Final = {"low", "high"}


class Explanation(msgspec.Struct, frozen=True):
    """One row's raw score, taken apart."""

    base: float
    """The raw score before any feature is known; the same for all rows."""
    contributions: dict[str, float]
    """By feature; together with the base they sum to the row's raw score."""


class Explainer:
    """Takes scores apart; made from the release's `explanation.npz`. Safe to share by threads."""

    def __init__(self, data: bytes, features: Sequence[Feature]) -> None:
        """Loads the file and holds it against the release.

        Args:
            data: the file.
            features: the release's features, in the order of the matrix.

        Raises:
            ReleaseRefused: the file is damaged, of another format, or made for other features.
        """
        self._names = [feature.name for feature in features]
        self._method = _load(data, features)

    @property
    def base(self) -> float:
        """The raw score before any feature is known."""
        return float(self._method.base)

    def explain(self, matrix: Array) -> tuple[float, Array]:
        """Explains rows of shape (rows, features), made by the release's encoder.

        Returns:
            The base value, and the contributions in the shape of `matrix`: both sum to each row's raw score.
        """
        return self.base, self._method.contributions(np.ascontiguousarray(matrix, dtype=np.float64))

    def explain_rows(self, matrix: Array) -> list[Explanation]:
        """Explains rows by the names of their features."""
        base, contributions = self.explain(matrix)
        return [Explanation(base, dict(zip(self._names, row, strict=True))) for row in contributions.tolist()]


def to_bytes(method: Method, features: Sequence[Feature]) -> bytes:
    """Writes the file; the same content has the same bytes."""
    (name,) = (name for name, kind in METHODS.items() if isinstance(method, kind))
    arrays = {name: np.asarray(getattr(method, name)) for name in method.ARRAYS}
    return write_arrays({"format": FORMAT, "method": name, "features": digest(features), **arrays})


def _load(data: bytes, features: Sequence[Feature]) -> Method:
    arrays = read_arrays(data, "explanation")
    for name, value in {"format": FORMAT, "features": digest(features)}.items():
        if (found := str(arrays.pop(name, None))) != value:
            raise ReleaseRefused(f"the explanation's {name} is {found!r}, the release's {value!r}; release it again")
    kind = METHODS.get(name := str(arrays.pop("method", None)))
    if kind is None:
        raise ReleaseRefused(f"the explanation's method is {name!r}, known are {sorted(METHODS)}; release it again")
    _check_arrays(kind, arrays)
    method = kind(**arrays)
    if not method.fits(len(features)):
        raise ReleaseRefused("the explanation's arrays do not fit each other or the features; release it again")
    return method


def _check_arrays(kind: type[Method], arrays: dict[str, npt.NDArray[Any]]) -> None:
    found = {name: (array.dtype.type, array.ndim) for name, array in arrays.items()}
    if found != dict(kind.ARRAYS):
        odd = sorted(name for name in {*found, *kind.ARRAYS} if found.get(name) != kind.ARRAYS.get(name))
        raise ReleaseRefused(f"the explanation's arrays {odd} are not what {kind.__name__} needs; release it again")
    for name, array in arrays.items():
        if (name not in _NANS and np.isnan(array).any()) or (name not in _INFINITIES and np.isinf(array).any()):
            raise ReleaseRefused(f"the explanation's {name} holds a value that is no number; release it again")
