"""Scores rows with the exported model, and with the scikit-learn estimator that it was exported from.

Both sides get what a server has in hand, a row of plain values: ours encodes and scores it, the other makes the
DataFrame that a scikit-learn pipeline with native categories wants. Rounds alternate; medians and their ratio are
printed, and one JSON line at the end.

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
from trainer.export import export_model
from trainer.learners import build_pipeline, encode_frame, fit, learn_features

ROWS = 20_000
BATCHES = (1, 100, 1000)
SECONDS = 0.4


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
    """Rows a second over about `SECONDS`."""
    work()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        work()
        done += rows
    return done / (time.perf_counter() - began)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=7)
    rounds = arguments.parse_args().rounds

    frame, target = make_frame(ROWS)
    kinds = {name: "numeric" if name.startswith("number") else "categorical" for name in frame}
    features = learn_features(frame, kinds)
    ours = fit(
        build_pipeline("hist_gradient_boosting", features, "binary", {"max_iter": 200, "early_stopping": False}),
        features,
        encode_frame(features, frame),
        target,
    )
    model = OnnxModel(export_model(ours, features, "binary"), "binary", features)
    typed = frame.astype({name: "category" for name, kind in kinds.items() if kind == "categorical"})
    theirs = HistGradientBoostingClassifier(max_iter=200, early_stopping=False, categorical_features="from_dtype")
    theirs.fit(typed, target)

    ratios = {}
    print(f"{'rows':>5} {'exported, rows/s':>18} {'scikit-learn, rows/s':>21} {'ratio':>7}")
    for rows in BATCHES:
        columns = {name: [None if v != v else v for v in frame[name][:rows].tolist()] for name in frame}
        dtypes = typed.dtypes.to_dict()

        def exported(columns: dict = columns) -> object:
            return model.score(model.encoder.encode(columns))

        def on_frame(columns: dict = columns, dtypes: dict = dtypes) -> object:
            return theirs.predict_proba(pd.DataFrame(columns).astype(dtypes))

        pairs = [(per_second(exported, rows), per_second(on_frame, rows)) for _ in range(rounds)]
        a, b = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
        ratios[rows] = round(median(x / y for x, y in pairs), 1)
        print(f"{rows:>5} {a:>18,.0f} {b:>21,.0f} {ratios[rows]:>7.1f}")
    print(json.dumps({"scoring_ratio": ratios}))


if __name__ == "__main__":
    main()
