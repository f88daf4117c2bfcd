"""Exact export: fitted estimators as ONNX, and the proof that both score alike."""

from trainer.export.graph import NotExportable
from trainer.export.model import export_model
from trainer.export.parity import Parity, check_parity
from trainer.export.stress import stress_rows

__all__ = ["NotExportable", "Parity", "check_parity", "export_model", "stress_rows"]
