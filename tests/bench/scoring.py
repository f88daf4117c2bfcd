"""Scores rows in native code, with ONNX Runtime, and with the scikit-learn estimator that both were exported from.

All get what a server has in hand, a row of plain values: ours encode and score it, the other makes the DataFrame that a
scikit-learn pipeline with native categories wants. Then the sums alone, for a matrix that is encoded already. Rounds
alternate; medians and medians of ratios are printed, and one JSON line at the end. Seconds are the processor's, so
that what else the machine does counts little.

    python tests/bench/scoring.py [--rounds 7]
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier

from esteira.scoring import OnnxModel
from esteira.trees import TreesModel
from trainer.export import export_model, export_trees
from trainer.learners import build_pipeline, encode_frame, fit, learn_features

ROWS = 20_000
BATCHES = (1, 100, 1000)
SECONDS = 0.4
PARAMS: dict = {"max_iter": 200, "early_stopping": False}


def make_frame(rows: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Seventeen numbers and three categories, a tenth of the numbers missing."""
    random = np.random.default_rng(7)
    numbers = random.normal(size=(rows, 17))
    target = (numbers[:, 0] + numbers[:, 1] * numbers[:, 2] + random.normal(size=rows) > 0).astype(float)
    numbers[random.random(numbers.shape) < 0.1] = np.nan
    frame = pd.DataFrame(numbers, columns=[f"number_{i}" for i in range(17)])
    for name, count in (("carrier", 16), ("origin", 3), ("dest", 105)):
        frame[name] = [f"{name}-{code:03}" for code in random.integers(count, size=rows)]
    return frame, target


def per_second(work: Callable[[], object], rows: int) -> float:
    """Rows a second of the processor, over about `SECONDS`."""
    work()
    done, began = 0, time.process_time()
    while time.process_time() - began < SECONDS:
        work()
        done += rows
    return done / (time.process_time() - began)


class Sides:
    """The same trees thrice, fitted on the same rows."""

    def __init__(self) -> None:
        self.frame, target = make_frame(ROWS)
        kinds = {name: "numeric" if name.startswith("number") else "categorical" for name in self.frame}
        features = learn_features(self.frame, kinds)
        self.matrix = encode_frame(features, self.frame)
        learner = build_pipeline("hist_gradient_boosting", features, "binary", PARAMS)
        ours = fit(learner, features, self.matrix, target)
        self.kernel = TreesModel(export_trees(ours, features, "binary"), "binary", features)
        self.onnx = OnnxModel(export_model(ours, features, "binary"), "binary", features)
        categories = {name: "category" for name, kind in kinds.items() if kind == "categorical"}
        self.dtypes = self.frame.astype(categories).dtypes.to_dict()
        self.theirs = HistGradientBoostingClassifier(**PARAMS, categorical_features="from_dtype")
        self.theirs.fit(self.frame.astype(self.dtypes), target)

    def from_values(self, rows: int) -> dict[str, Callable[[], object]]:
        """Work from plain values to scores."""
        columns = {name: [None if v != v else v for v in self.frame[name][:rows].tolist()] for name in self.frame}
        return {
            "kernel": lambda: self.kernel.score(self.kernel.encoder.encode(columns)),
            "onnx": lambda: self.onnx.score(self.onnx.encoder.encode(columns)),
            "sklearn": lambda: self.theirs.predict_proba(pd.DataFrame(columns).astype(self.dtypes)),
        }

    def from_matrix(self, rows: int) -> dict[str, Callable[[], object]]:
        """Work from a matrix to sums."""
        matrix = self.matrix[:rows].copy()
        return {"kernel": lambda: self.kernel.raw(matrix), "onnx": lambda: self.onnx.raw(matrix)}


def compare(title: str, works: Callable[[int], dict[str, Callable[[], object]]], rounds: int) -> dict[str, dict]:
    """Prints a table of rows a second and of how often the kernel's are those of the others."""
    others = [name for name in works(1) if name != "kernel"]
    print(title, *(f"{name:>12}" for name in ("kernel", *others)), *(f"{f'/ {name}':>10}" for name in others))
    figures: dict[str, dict] = {}
    for rows in BATCHES:
        side = works(rows)
        found = [{name: per_second(work, rows) for name, work in side.items()} for _ in range(rounds)]
        speeds = {name: median(one[name] for one in found) for name in side}
        ratios = {name: median(one["kernel"] / one[name] for one in found) for name in others}
        shown = [*(f"{speed:>12,.0f}" for speed in speeds.values()), *(f"{ratio:>10.1f}" for ratio in ratios.values())]
        print(f"{rows:>{len(title)}}", *shown)
        figures[str(rows)] = {"rows_per_s": {name: round(speed) for name, speed in speeds.items()}, "ratio": ratios}
    return figures


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=7)
    rounds = arguments.parse_args().rounds
    sides = Sides()
    values = compare("values to scores, rows", sides.from_values, rounds)
    sums = compare("matrix to sums, rows  ", sides.from_matrix, rounds)
    print(json.dumps({"scoring": values, "sums": sums}))


if __name__ == "__main__":
    main()
