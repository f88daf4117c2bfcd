"""Decides in which forms a model is released: each is held against scikit-learn on all held-out and stress rows."""

import logging
from typing import Any

import msgspec
import numpy as np

from esteira.exceptions import ReleaseRefused
from esteira.release import Gate
from esteira.scoring import Array, OnnxModel, Task
from esteira.trees import TreesModel
from trainer import gates
from trainer.export import NotSummable, check_parity, export_model, export_trees, stress_rows
from trainer.fit import Matrices

logger = logging.getLogger(__name__)


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """A model in the forms that a release carries."""

    model: bytes
    """The ONNX file: the form that anybody can score with, and what serves where there are no trees."""
    trees: bytes | None
    """The `trees.npz` that serves; None where the model is no sum of trees, or this would not answer as it does."""
    gates: list[Gate]


def export_proved(estimator: Any, matrices: Matrices, task: Task, seed: int) -> Exported:
    """Exports a fitted estimator, and scores all held-out rows and the stress rows with what will serve.

    Args:
        estimator: fitted on the training rows.
        matrices: those, and the held-out ones.
        task: what it was fitted for.
        seed: of the stress rows.

    Raises:
        NotExportable: the estimator has no exact form.
    """
    model = export_model(estimator, matrices.features, task)
    rows = np.concatenate([matrices.test, stress_rows(matrices.test, matrices.features, seed, estimator)])
    parity = check_parity(estimator, OnnxModel(model, task, matrices.features), rows)
    trees, summed = export_proved_trees(estimator, matrices, task, rows)
    return Exported(model=model, trees=trees, gates=[gates.parity_gate(parity), summed])


def export_proved_trees(estimator: Any, matrices: Matrices, task: Task, rows: Array) -> tuple[bytes | None, Gate]:
    """Makes the `trees.npz` of a fitted estimator, and scores `rows` with it.

    Returns:
        The file, or None where there is none or a bit differs: such a release can serve, by ONNX Runtime, only slower.
        And the gate that says which.
    """
    try:
        trees = export_trees(estimator, matrices.features, task)
        parity = check_parity(estimator, TreesModel(trees, task, matrices.features), rows)
    except (NotSummable, ReleaseRefused) as error:
        return None, gates.unsummed_gate(str(error))
    if not parity.passed:
        logger.error("sums of trees differ from scikit-learn", extra={"difference": parity.max_abs_difference})
        return None, gates.unsummed_gate(f"scores are {parity.max_abs_difference:.3g} off scikit-learn's")
    return trees, gates.trees_gate(parity)
