"""The service that BentoML serves: rows in, scores out. Rows become one DataFrame for each call of the model.

`BATCHING=1` lets BentoML bring requests together; lists of rows are joined sooner than DataFrames.
"""

import os
from typing import Any

import bentoml
import joblib
import pandas as pd

BATCHING = os.environ.get("BATCHING") == "1"
OPTIONS: dict[str, Any] = {"batchable": True, "max_batch_size": 4000, "max_latency_ms": 10_000} if BATCHING else {}


@bentoml.service(
    workers=int(os.environ["WORKERS"]),
    threads=int(os.environ["THREADS"]),
    traffic={"timeout": 60},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Scores:
    """Scores rows by the pipeline that the bench has fitted."""

    def __init__(self) -> None:
        self.pipeline = joblib.load(os.environ["MODEL"])
        self.columns = list(self.pipeline.feature_names_in_)

    @bentoml.api(**OPTIONS)
    def predict(self, rows: list[Any]) -> list[float]:
        """One score a row."""
        frame = pd.DataFrame(rows, columns=self.columns)
        scores: list[float] = self.pipeline.predict_proba(frame)[:, 1].tolist()
        return scores
