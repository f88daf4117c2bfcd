"""From sums to scores: the inverse links, with the bits of scikit-learn's own.

They take the same functions, in the same order and memory layout.
"""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Link = Literal["identity", "log", "logit", "softmax"]


def inverse_link(link: Link, raw: Array) -> Array:
    """Turns sums of shape (rows, outputs) into scores."""
    if link == "softmax":
        return _softmax(raw)
    sums = raw[:, 0]
    if link == "logit":
        return _expit(sums)
    return np.exp(sums) if link == "log" else sums


def _expit(sums: Array) -> Array:
    """Has the bits of `scipy.special.expit`, which calls the C library's `exp` as `math.exp` does; NumPy's differs."""
    exp = math.exp
    try:
        return np.array([1.0 / (1.0 + exp(-value)) for value in sums.tolist()])
    except OverflowError:
        return np.array([_expit_of(value) for value in sums.tolist()])


def _expit_of(value: float) -> float:
    try:
        return 1.0 / (1.0 + math.exp(-value))
    except OverflowError:
        return 0.0


def _softmax(raw: Array) -> Array:
    """Follows scikit-learn step by step, column-major as its raw predictions are: the layout orders the sum."""
    scores = np.array(raw, order="F")
    scores -= np.max(scores, axis=1).reshape(-1, 1)
    np.exp(scores, out=scores)
    scores /= np.sum(scores, axis=1).reshape(-1, 1)
    return scores
