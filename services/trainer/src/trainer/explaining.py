"""Decides whether a release carries explanations: only those that sum to the very scores that it serves."""

import logging
from typing import Any, Final

import numpy as np

from esteira.exceptions import ReleaseRefused
from esteira.release import Gate
from esteira.scoring import Array, OnnxModel
from trainer import gates
from trainer.export import NotExplainable, check_additivity, export_explanation, stress_rows
from trainer.fit import Matrices

logger = logging.getLogger(__name__)

EXPLAINED_ROWS: Final = 300
"""Held-out rows, and as many made to find differences, whose explanations must sum to their scores."""


def explain_model(estimator: Any, matrices: Matrices, model: OnnxModel, seed: int) -> tuple[bytes | None, Gate]:
    """Makes the `explanation.npz` of an exported `model`, and proves it.

    Returns:
        The file, or None where there is no explainer or its sums are not the model's raw scores: such a release can
        serve, without explanations. And the gate that says which.
    """
    rows = _sample(matrices.test)
    rows = np.concatenate([rows, _sample(stress_rows(rows, matrices.features, seed, estimator))])
    try:
        explanation = export_explanation(estimator, matrices.features, matrices.train)
        additivity = check_additivity(explanation, model, rows)
    except (NotExplainable, ReleaseRefused) as error:
        return None, gates.unexplained_gate(str(error))
    if not additivity.passed:
        logger.error("explanations do not add up", extra={"difference": additivity.max_difference})
        return None, gates.unexplained_gate(f"sums are {additivity.max_difference:.3g} off the raw scores")
    return explanation, gates.explanation_gate(additivity)


def _sample(matrix: Array) -> Array:
    return matrix[:: max(1, -(-len(matrix) // EXPLAINED_ROWS))]
