"""The predictor under load, beside what a user would run instead: one run, alternating rounds, medians.

    python tests/bench/serving.py [--rounds 3] [--seconds 4] [--only esteira-granian,echo-granian]

Every side serves the same model of 17 numbers and 3 categories with two workers; the load generator shares the
machine's cores with it. `echo` decodes and encodes JSON on the same server, and does nothing else: the most that any
application there can reach. The last line is one JSON object with the ratios.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import msgspec
import numpy as np
import pandas as pd
import requests
from google.cloud.pubsub_v1 import PublisherClient
from load import Measured, load
from sklearn.ensemble import HistGradientBoostingClassifier

from esteira.bucket import Bucket
from esteira.profile import SCORE, Profile, describe_categorical, describe_numeric
from esteira.release import MODEL, PROFILE, STATEMENT, Dataset, Release
from esteira.schema import Column
from esteira_cli.stack import Options, Stack
from esteira_cli.stack.bucket import create as create_bucket
from releases import MOMENT, BuiltRelease, write_manifest
from releases import _hash_files as hash_files
from trainer.export import export_model
from trainer.learners import build_pipeline, encode_frame, fit, learn_features, predict_scores

ROWS = 20_000
BATCHES = {1: 16, 100: 16, 1000: 4}
"""Rows a request → connections."""
WORKERS = 2
PATIENCE_S = 120.0
ECHO = """
import msgspec
decode, encode = msgspec.json.decode, msgspec.json.encode
def create():
    return app
def app(environ, start_response):
    data = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    body = encode(decode(data or b"{}"))
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""


def make_frame(rows: int, numbers: int = 17) -> tuple[pd.DataFrame, np.ndarray]:
    """Numbers, a tenth of them missing, and three categories."""
    random = np.random.default_rng(7)
    values = random.normal(size=(rows, numbers))
    target = (values[:, 0] + values[:, 1] * values[:, 2] + random.normal(size=rows) > 0).astype(float)
    values[random.random(values.shape) < 0.1] = np.nan
    frame = pd.DataFrame(values, columns=[f"number_{i}" for i in range(numbers)])
    for name, count in (("carrier", 16), ("origin", 3), ("dest", 105)):
        frame[name] = [f"{name}-{code:03}" for code in random.integers(count, size=rows)]
    return frame, target


class Model:
    """The model that every side serves."""

    def __init__(self, folder: Path) -> None:
        self.frame, self.target = make_frame(ROWS)
        self.kinds = {name: "numeric" if name.startswith("number") else "categorical" for name in self.frame}
        self.folder = folder
        params = {"max_iter": 200, "early_stopping": False}
        self.features = learn_features(self.frame, self.kinds)
        matrix = encode_frame(self.features, self.frame)
        learner = build_pipeline("hist_gradient_boosting", self.features, "binary", params)
        self.estimator = fit(learner, self.features, matrix, self.target)
        self.scores = predict_scores(self.estimator, matrix, "binary")

    def rows(self, count: int) -> list[dict[str, Any]]:
        """Feature rows as JSON has them."""
        return [
            {name: None if value != value else value for name, value in row.items()}
            for row in self.frame[:count].to_dict("records")
        ]

    def raw_rows(self, count: int) -> list[dict[str, Any]]:
        """Raw rows, from which features.sql makes the features."""
        return [{"id": number, **row} for number, row in enumerate(self.rows(count))]

    def release(self) -> BuiltRelease:
        """As Esteira's trainer would release it."""
        home = self.folder / "release"
        home.mkdir()
        (home / MODEL).write_bytes(export_model(self.estimator, self.features, "binary"))
        (home / STATEMENT).write_text("SELECT ...")
        binned = [
            (describe_numeric if f.kind == "numeric" else describe_categorical)(f.name, self.frame[f.name].tolist())
            for f in self.features
        ]
        profile = Profile(features=binned, score=describe_numeric(SCORE, self.scores), rows=ROWS)
        (home / PROFILE).write_bytes(msgspec.json.encode(profile))
        kinds = {"numeric": "number", "categorical": "string"}
        columns = [Column(name=f.name, type=kinds[f.kind], nullable=True) for f in self.features]  # type: ignore[arg-type]
        named = ", ".join(f'raw."{f.name}"' for f in self.features)
        release = Release(
            pipeline="bench",
            version="v1",
            task="classification",
            created_at=MOMENT,
            label="late",
            entity=["id"],
            event_time=None,
            columns=[Column(name="id", type="integer"), *columns],
            features=self.features,
            statement=f"SELECT raw._row AS _row, {named} FROM raw",
            reference={},
            learner="hist_gradient_boosting",
            threshold=0.5,
            metrics={},
            gates=[],
            dataset=Dataset(number=1, version="0" * 16, manifest="m", rows=ROWS, labelled=ROWS),
            training_run_id="run",
            mlflow_run_id=None,
            code_version="bench",
            seed=0,
            example=self.raw_rows(3),
            example_scores=self.scores[:3].tolist(),
            files=hash_files(home),
        )
        return BuiltRelease(home, release, write_manifest(home, release), self.estimator, "binary")


class Side:
    """Something that serves the model, and how it is asked."""

    def __init__(self, name: str, url: str, body: Callable[[int], Any]) -> None:
        self.name = name
        self.url = url
        self._body = body

    def measure(self, rows: int, seconds: float) -> Measured:
        """One round."""
        return load(self.url, msgspec.json.encode(self._body(rows)), BATCHES[rows], seconds)


@contextmanager
def running(command: list[str], environ: dict[str, str], folder: Path, health: str) -> Iterator[None]:
    """Starts a server, waits until it is healthy, and ends it with all its workers."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {**os.environ, **environ, "PYTHONPATH": str(folder), "PATH": path}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, env=environ, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        _await(health, process, folder / "server.log")
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await(health: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(health, timeout=5).status_code < 500:
                return
        except requests.RequestException:
            time.sleep(0.1)
    raise SystemExit(f"{health} does not answer:\n{log.read_text()[-3000:]}")


def sides(model: Model, stack: Stack, folder: Path) -> dict[str, Callable[[], Any]]:
    """What can be measured, by name: each a context that gives the sides that it runs."""
    port = 18_900

    @contextmanager
    def esteira(server: str, at: int) -> Iterator[list[Side]]:
        environ = {
            **stack.environment("predictor"),
            "SERVER": server,
            "PORT": str(at),
            "WEB_CONCURRENCY": str(WORKERS),
            "THREADS": os.environ.get("THREADS", "4"),
            "CACHE_DIR": str(folder / f"cache-{server}"),
            "PUSH_AUTHENTICATION": "none",
            "LOG_LEVEL": "error",
        }
        home = f"http://127.0.0.1:{at}"
        command = [sys.executable, "-m", "predictor.server"]
        with running(command, environ, folder, f"{home}/health/ready"):
            url = f"{home}/pipelines/bench/predict"
            yield [
                Side(f"esteira-{server}", url, lambda rows: {"features": model.rows(rows)}),
                Side(f"esteira-{server}-sql", url, lambda rows: {"rows": model.raw_rows(rows)}),
            ]

    @contextmanager
    def echo(server: str, at: int) -> Iterator[list[Side]]:
        (folder / "echo_app.py").write_text(ECHO)
        home = f"127.0.0.1:{at}"
        commands = {
            "granian": [
                *(sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(at)),
                *("--workers", str(WORKERS), "--blocking-threads", "4", "--http", "1", "--no-ws", "--factory"),
                "echo_app:create",
            ],
            "gunicorn": [
                *(sys.executable, "-m", "gunicorn", "-b", home, "-w", str(WORKERS), "-k", "gthread", "--threads", "4"),
                "echo_app:app",
            ],
        }
        with running(commands[server], {}, folder, f"http://{home}/"):
            yield [Side(f"echo-{server}", f"http://{home}/", lambda rows: {"features": model.rows(rows)})]

    @contextmanager
    def mlflow(at: int) -> Iterator[list[Side]]:
        saved = _save_with_mlflow(model, folder)
        command = [
            *(sys.executable, "-m", "mlflow", "models", "serve", "-m", str(saved), "--env-manager", "local"),
            *("-h", "127.0.0.1", "-p", str(at), "--workers", str(WORKERS)),
        ]
        with running(command, {"OMP_NUM_THREADS": "1"}, folder, f"http://127.0.0.1:{at}/ping"):
            yield [
                Side(
                    "mlflow",
                    f"http://127.0.0.1:{at}/invocations",
                    lambda rows: {
                        "dataframe_split": {
                            "columns": list(model.frame),
                            "data": [list(row.values()) for row in model.rows(rows)],
                        }
                    },
                )
            ]

    return {
        "esteira-granian": lambda: esteira("granian", port + 1),
        "esteira-gunicorn": lambda: esteira("gunicorn", port + 2),
        "echo-granian": lambda: echo("granian", port + 3),
        "echo-gunicorn": lambda: echo("gunicorn", port + 4),
        "mlflow": lambda: mlflow(port + 5),
    }


def _save_with_mlflow(model: Model, folder: Path) -> Path:
    import mlflow.sklearn
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    saved = folder / "mlflow-model"
    if not saved.exists():
        texts = [name for name, kind in model.kinds.items() if kind == "categorical"]
        encoder = make_column_transformer((OrdinalEncoder(), texts), remainder="passthrough")
        learner = HistGradientBoostingClassifier(max_iter=200, early_stopping=False, categorical_features=[0, 1, 2])
        pipeline = make_pipeline(encoder, learner).fit(model.frame, model.target)
        mlflow.sklearn.save_model(pipeline, str(saved), serialization_format="cloudpickle")
    return saved


def main() -> None:
    """Measures, and prints a table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="esteira-bench-"))
    (folder / "pipelines").mkdir()
    stack = Stack(folder / "stack", folder / "pipelines", Options(durable=False, log_level="error"))
    try:
        stack.up(only={"bucket", "pubsub"})
        found = _measure(given, stack, folder)
    finally:
        stack.down(wipe=True)
        shutil.rmtree(folder, ignore_errors=True)
    _show(found)


def _measure(given: argparse.Namespace, stack: Stack, folder: Path) -> dict[tuple[str, int], list[Measured]]:
    model = Model(folder)
    os.environ["STORAGE_EMULATOR_HOST"] = stack.addresses()["bucket"]
    create_bucket(stack.addresses()["bucket"], "esteira-local", "esteira-local")
    create_topic(stack.addresses()["pubsub"], "predictions-served")
    bucket = Bucket("esteira-local", "esteira-local")
    built = model.release()
    built.upload(bucket)
    built.promote(bucket)
    wanted = [name for name in given.only.split(",") if name]
    batches = [int(text) for text in given.batches.split(",")]
    found: dict[tuple[str, int], list[Measured]] = {}
    for number in range(given.rounds):
        for name, start in sides(model, stack, folder).items():
            if wanted and name not in wanted:
                continue
            with start() as run:
                for side in run:
                    for rows in batches:
                        side.measure(rows, 0.5)
                        one = side.measure(rows, given.seconds)
                        found.setdefault((side.name, rows), []).append(one)
                        told = f"{one.rate:,.0f}/s, p99 {one.percentile(0.99):.2f} ms, {one.failures} failures"
                        print(f"round {number + 1}: {side.name}, {rows} rows: {told}", flush=True)
    return found


def create_topic(host: str, name: str) -> None:
    """A topic that nobody hears, as if its hearers were on other machines."""
    os.environ["PUBSUB_EMULATOR_HOST"] = host
    with PublisherClient() as client:
        client.create_topic(name=f"projects/esteira-local/topics/{name}")


def _show(found: dict[tuple[str, int], list[Measured]]) -> None:
    rates = {key: median(one.rate for one in many) for key, many in found.items()}
    print("\n| side | rows a request | requests/s | p50 ms | p99 ms |\n|---|---:|---:|---:|---:|")
    for (name, rows), rate in rates.items():
        many = found[name, rows]
        p50, p99 = (median(one.percentile(share) for one in many) for share in (0.5, 0.99))
        print(f"| {name} | {rows:,} | {rate:,.0f} | {p50:.2f} | {p99:.2f} |")
    ratios = {
        f"{name} / {other}, {rows} rows": round(rate / rates[other, rows], 3)
        for (name, rows), rate in rates.items()
        for other in ("mlflow", "echo-granian", "echo-gunicorn")
        if name.startswith("esteira") and (other, rows) in rates
    }
    print("\n" + json.dumps(ratios))


if __name__ == "__main__":
    main()
