"""Whether an exported model scores as the estimator it comes from."""

from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from esteira.scoring import Array, Model, Task
from trainer.export.linear import magnitude
from trainer.export.model import LINEAR_MODELS, split_steps
from trainer.learners import predict_scores

LINEAR_TOLERANCE: Final = 1e-12


class Parity(msgspec.Struct, frozen=True):
    """The comparison of two models over the same rows."""

    rows: int
    bit_equal: bool
    max_abs_difference: float
    """Infinite where one score is NaN and the other is not."""
    decisions_changed: int
    """Rows where the likeliest class differs (a binary decision is at 0.5); 0 for a regression."""
    tolerance: float
    """0 for trees: bit for bit. For linear models relative to the row's terms, at least to 1; see `magnitude`."""
    passed: bool


def check_parity(estimator: Any, model: Model, matrix: Array) -> Parity:
    """Compares the exported `model` with the `estimator` on the rows of `matrix`, at least one.

    Histogram boosting must be bit-equal. A linear model must stay within `LINEAR_TOLERANCE`, relative to the sum of
    the absolute terms of the row's decision function, and change no decision.
    """
    expected, found = predict_scores(estimator, matrix, model.task), model.score(matrix)
    difference = _difference(expected, found)
    allowed = _allowed(estimator, matrix)
    changed = int((_decisions(expected, model.task) != _decisions(found, model.task)).sum())
    worst = difference.reshape(len(matrix), -1).max(axis=1, initial=0.0)
    bit_equal = bool(np.array_equal(expected.view(np.int64), found.view(np.int64)))
    return Parity(
        rows=len(matrix),
        bit_equal=bit_equal,
        max_abs_difference=float(worst.max(initial=0.0)),
        decisions_changed=changed,
        tolerance=LINEAR_TOLERANCE if allowed is not None else 0.0,
        passed=changed == 0 and (bit_equal if allowed is None else bool((worst <= allowed).all())),
    )


def _difference(expected: Array, found: Array) -> Array:
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(expected - found))
    return np.where(np.isnan(difference), np.inf, difference)


def _allowed(estimator: Any, matrix: Array) -> Array | None:
    """Gives the allowed difference per row; None where the scores must be bit-equal."""
    steps, final = split_steps(estimator)
    if type(final) not in LINEAR_MODELS:
        return None
    prepared = matrix
    for step in steps:
        prepared = step.transform(prepared)
    allowed: Array = LINEAR_TOLERANCE * np.maximum(1.0, magnitude(final, np.asarray(prepared)))
    return allowed


def _decisions(scores: Array, task: Task) -> npt.NDArray[Any]:
    if task == "regression":
        return np.zeros(len(scores))
    decisions: npt.NDArray[Any] = scores >= 0.5 if task == "binary" else scores.argmax(axis=1)
    return decisions
