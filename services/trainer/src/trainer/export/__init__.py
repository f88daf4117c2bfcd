"""Exact export: fitted estimators as ONNX and as explanations, and the proof that both say what the estimator does."""

from trainer.export.explanation import EXPLANATION_TOLERANCE, Additivity, check_additivity, export_explanation
from trainer.export.graph import NotExplainable, NotExportable
from trainer.export.model import export_model
from trainer.export.parity import Parity, check_parity
from trainer.export.stress import stress_rows

__all__ = [
    "EXPLANATION_TOLERANCE",
    "Additivity",
    "NotExplainable",
    "NotExportable",
    "Parity",
    "check_additivity",
    "check_parity",
    "export_explanation",
    "export_model",
    "stress_rows",
]
