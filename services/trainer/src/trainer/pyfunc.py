"""Lets MLflow load a release: `mlflow.pyfunc.load_model("models:/<pipeline>@champion").predict(raw_rows)`.

Nothing of the release is executed: its files are verified and its model is an ONNX graph.
"""

from pathlib import Path

import msgspec
import pandas as pd

from esteira.exceptions import BadInput
from esteira.runtime import ReleaseRuntime
from esteira.schema import check_row
from esteira.scoring import Array


class ReleaseModel:
    """A release that scores data frames of raw rows."""

    def __init__(self, runtime: ReleaseRuntime) -> None:
        self.runtime = runtime

    def predict(self, rows: pd.DataFrame) -> Array:
        """Scores raw rows, which have the pipeline's columns; times as text or as pandas knows them.

        Raises:
            BadInput: a value breaks its column's rule.
        """
        known = {column.name for column in self.runtime.release.columns}
        plain = rows[[name for name in rows.columns if name in known]].astype(object)
        records = msgspec.to_builtins(plain.where(plain.notna(), None).to_dict("records"), enc_hook=str)
        checked = [check_row(self.runtime.release.columns, row, f"[{i}]") for i, row in enumerate(records)]
        problems = [problem for _, found in checked for problem in found]
        if problems:
            raise BadInput(problems)
        return self.runtime.score(self.runtime.features([row for row, _ in checked]))


def _load_pyfunc(path: str) -> ReleaseModel:
    """The name that MLflow calls."""
    return ReleaseModel(ReleaseRuntime(Path(path)))
