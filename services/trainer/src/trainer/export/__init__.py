"""Exact export: fitted estimators as ONNX, sums of trees and explanations, and the proof that all say the same."""

from trainer.export.explanation import EXPLANATION_TOLERANCE, Additivity, check_additivity, export_explanation
from trainer.export.graph import NotExplainable, NotExportable, NotSummable
from trainer.export.leaves import export_trees
from trainer.export.model import export_model
from trainer.export.parity import Parity, check_parity
from trainer.export.stress import stress_rows

__all__ = [
    "EXPLANATION_TOLERANCE",
    "Additivity",
    "NotExplainable",
    "NotExportable",
    "NotSummable",
    "Parity",
    "check_additivity",
    "check_parity",
    "export_explanation",
    "export_model",
    "export_trees",
    "stress_rows",
]
