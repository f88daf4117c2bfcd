"""Explains rows with what a release carries, and with shap's TreeExplainer on the estimator that it was made from.

All features are numbers, for shap's answers are wrong where splits are by category. The contributions of both are
compared first. Rounds alternate; medians and their ratio are printed, and one JSON line at the end. The last column is
the same model size with three categories, explained by the release alone.

    python tests/bench/explaining.py [--rounds 7]
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from scoring import make_frame

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import shap

from esteira.explanation import Explainer
from trainer.export import export_explanation
from trainer.learners import build_pipeline, encode_frame, fit, learn_features

ROWS = 20_000
BATCHES = (1, 100, 1000)
SECONDS = 0.3
PARAMS = {"max_iter": 100, "max_leaf_nodes": 31, "early_stopping": False}


def fit_and_explain(frame: pd.DataFrame, target: np.ndarray) -> tuple[Any, Explainer, np.ndarray]:
    """Gives the estimator, its explainer and the matrix."""
    kinds: dict = {name: "numeric" if name.startswith("number") else "categorical" for name in frame}
    features = learn_features(frame, kinds)
    matrix = encode_frame(features, frame)
    estimator = fit(build_pipeline("hist_gradient_boosting", features, "binary", PARAMS), features, matrix, target)
    return estimator, Explainer(export_explanation(estimator, features, matrix), features), matrix


def milliseconds(work: Callable[[], object], rows: int) -> float:
    """Milliseconds a row over about `SECONDS`."""
    work()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        work()
        done += rows
    return (time.perf_counter() - began) / done * 1000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=7)
    rounds = arguments.parse_args().rounds

    frame, target = make_frame(ROWS)
    estimator, ours, matrix = fit_and_explain(frame[[name for name in frame if name.startswith("number")]], target)
    _, mixed, codes = fit_and_explain(frame, target)
    theirs = shap.TreeExplainer(estimator, feature_perturbation="tree_path_dependent")
    difference = float(np.abs(ours.explain(matrix[:1000])[1] - theirs.shap_values(matrix[:1000])).max())
    print(f"largest difference of a contribution in 1,000 rows: {difference:.2g}")
    print(f"{'rows':>5} {'release, ms/row':>16} {'shap, ms/row':>13} {'shap / release':>15} {'categories, ms/row':>19}")
    figures = {}
    for rows in BATCHES:
        works = (
            lambda rows=rows: ours.explain(matrix[:rows]),
            lambda rows=rows: theirs.shap_values(matrix[:rows], check_additivity=False),
            lambda rows=rows: mixed.explain(codes[:rows]),
        )
        found = [tuple(milliseconds(work, rows) for work in works) for _ in range(rounds)]
        a, b, c = (median(column) for column in zip(*found, strict=True))
        ratio = median(other / own for own, other, _ in found)
        figures[rows] = {"release": round(a, 4), "shap": round(b, 4), "ratio": round(ratio, 2), "mixed": round(c, 4)}
        print(f"{rows:>5} {a:>16.3f} {b:>13.3f} {ratio:>15.2f} {c:>19.3f}")
    print(json.dumps({"explaining": figures, "difference": difference}))


if __name__ == "__main__":
    main()
