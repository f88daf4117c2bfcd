"""What is measured: each side starts a server of its own with two workers, and knows how it is asked."""

import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
import requests
from load import Connection, Measured, connect, load
from model import Model

BATCHES = {1: 16, 100: 16, 1000: 4}
"""Rows a request → connections."""
WORKERS = 2
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
Body = Callable[[int], Any]
"""How many rows → what is sent as JSON."""
Read = Callable[[Any], Any]
"""The answer's JSON → its scores."""


class WrongScores(Exception):
    """A side's scores are not scikit-learn's."""


class Route:
    """One way to ask a server. `read` is None where the answer holds no scores: it is then what was sent."""

    def __init__(self, name: str, url: str, model: Model, body: Body, read: Read | None) -> None:
        self.name = name
        self.url = url
        self._expected = model.scores
        self._bodies = {rows: msgspec.json.encode(body(rows)) for rows in BATCHES}
        self._read = read

    def answers(self) -> bool:
        """Whether it answers one row, and rightly."""
        answer = self._ask(1)
        if answer.status_code == 200:
            self._check(answer, 1)
        return answer.status_code == 200

    def verify(self, rows: int) -> None:
        """Raises `WrongScores` unless every score of a batch is what scikit-learn says, bit for bit."""
        answer = self._ask(rows)
        if answer.status_code != 200:
            raise WrongScores(f"{self.name} answers {rows} rows with {answer.status_code}: {answer.text[:300]}")
        self._check(answer, rows)

    def served(self) -> str:
        """The version that the predictor says it answers with."""
        return str(self._ask(1).headers.get("X-Model-Version"))

    def measure(self, rows: int, seconds: float, connections: int = 0) -> Measured:
        """One round."""
        return load(self.url, self._bodies[rows], connections or BATCHES[rows], seconds)

    def connect(self, rows: int) -> list[Connection]:
        """The usual connections, open and silent."""
        return connect(self.url, self._bodies[rows], BATCHES[rows])

    def _ask(self, rows: int) -> requests.Response:
        headers = {"Content-Type": "application/json"}
        return requests.post(self.url, self._bodies[rows], headers=headers, timeout=30)

    def _check(self, answer: requests.Response, rows: int) -> None:
        if self._read is None:
            if answer.json() != json.loads(self._bodies[rows]):
                raise WrongScores(f"{self.name} does not answer what it was sent")
            return
        scores = np.asarray(self._read(answer.json()), dtype=float)
        if scores.shape != (rows,) or not np.array_equal(scores, self._expected[:rows]):
            raise WrongScores(f"{self.name} scores {rows} rows as {scores[:3]}…, scikit-learn {self._expected[:3]}…")


class Side(msgspec.Struct, frozen=True):
    """A server: its command, its variables, its folder, and the ways to ask it."""

    command: list[str]
    environ: dict[str, str]
    folder: Path
    routes: list[Route]


class Sides:
    """Makes the sides; what they load is written when they are first asked for.

    Args:
        environ: of the predictor, but for what each side sets.
        peers: the environment of MLServer and BentoML.
    """

    def __init__(self, model: Model, environ: Mapping[str, str], folder: Path, peers: Path) -> None:
        self._model = model
        self._environ = environ
        self._folder = folder
        self._peers = peers.absolute() / "bin"
        self.makers: dict[str, Callable[[str], Side]] = {
            "esteira-granian": lambda name: self.esteira(name, "granian"),
            "esteira-gunicorn": lambda name: self.esteira(name, "gunicorn"),
            "echo-granian": lambda name: self._echo(name, "granian"),
            "echo-gunicorn": lambda name: self._echo(name, "gunicorn"),
            "mlflow": self._mlflow,
            "mlserver": lambda name: self._mlserver(name, {}),
            "mlserver-batching": lambda name: self._mlserver(name, {"max_batch_size": 8, "max_batch_time": 0.005}),
            "bentoml": lambda name: self._bentoml(name, batching=False),
            "bentoml-batching": lambda name: self._bentoml(name, batching=True),
        }

    def make(self, name: str) -> Side:
        """The side of this name, at a port of its own."""
        return self.makers[name](name)

    def esteira(self, name: str, server: str, **more: str) -> Side:
        """The predictor; `more` are variables of its environment."""
        port, home = self._place(name)
        environ = {
            **self._environ,
            "SERVER": server,
            "PORT": str(port),
            "WEB_CONCURRENCY": str(WORKERS),
            "THREADS": os.environ.get("THREADS", "16"),
            "CACHE_DIR": str(home / "cache"),
            "PUSH_AUTHENTICATION": "none",
            "LOG_LEVEL": "error",
            **more,
        }
        return Side([sys.executable, "-m", "predictor.server"], environ, home, self.esteira_routes(name, port))

    def esteira_routes(self, name: str, port: int, model: Model | None = None) -> list[Route]:
        """Features, and raw rows through features.sql."""
        model = model or self._model
        url = f"http://127.0.0.1:{port}/pipelines/{model.name}/predict"
        return [
            Route(name, url, model, lambda rows: {"features": model.rows(rows)}, _esteira_scores),
            Route(f"{name}-sql", url, model, lambda rows: {"rows": model.raw_rows(rows)}, _esteira_scores),
        ]

    def _echo(self, name: str, server: str) -> Side:
        port, home = self._place(name)
        (home / "echo_app.py").write_text(ECHO)
        at, python = f"127.0.0.1:{port}", sys.executable
        granian = ["--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port), "--workers", str(WORKERS)]
        granian += ["--blocking-threads", "4", "--http", "1", "--no-ws", "--factory", "echo_app:create"]
        gunicorn = ["-b", at, "-w", str(WORKERS), "-k", "gthread", "--threads", "4", "echo_app:app"]
        command = [python, "-m", server, *(granian if server == "granian" else gunicorn)]
        route = Route(name, f"http://{at}/", self._model, lambda rows: {"features": self._model.rows(rows)}, None)
        return Side(command, {"PYTHONPATH": str(home)}, home, [route])

    def _mlflow(self, name: str) -> Side:
        import mlflow.sklearn

        port, home = self._place(name)
        if not (home / "model").exists():
            mlflow.sklearn.save_model(
                self._model.pipeline,
                str(home / "model"),
                serialization_format="cloudpickle",
                pyfunc_predict_fn="predict_proba",
                pip_requirements=["scikit-learn"],
            )
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(home / "model")]
        command += ["--env-manager", "local", "-h", "127.0.0.1", "-p", str(port), "--workers", str(WORKERS)]
        columns = list(self._model.frame)
        route = Route(
            name,
            f"http://127.0.0.1:{port}/invocations",
            self._model,
            lambda rows: {"dataframe_split": {"columns": columns, "data": self._model.values(rows)}},
            lambda answer: [pair[1] for pair in answer["predictions"]],
        )
        return Side(command, {}, home, [route])

    def _mlserver(self, name: str, batching: dict[str, Any]) -> Side:
        port, home = self._place(name)
        joblib.dump(self._model.pipeline, home / "model.joblib")
        settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": port + 1, "metrics_endpoint": None}
        settings |= {"parallel_workers": WORKERS, "debug": False}
        (home / "settings.json").write_text(json.dumps(settings))
        served = {"name": "bench", "implementation": "mlserver_sklearn.SKLearnModel", **batching}
        served["parameters"] = {"uri": "./model.joblib", "extra": {"predict_fn": "predict_proba"}}
        (home / "model-settings.json").write_text(json.dumps(served))
        url = f"http://127.0.0.1:{port}/v2/models/bench/infer"
        route = Route(name, url, self._model, self._open_inference, lambda answer: answer["outputs"][0]["data"][1::2])
        return Side([str(self._peers / "mlserver"), "start", "."], {}, home, [route])

    def _open_inference(self, rows: int) -> dict[str, Any]:
        """A request of the Open Inference Protocol: a tensor a column."""
        columns = zip(*self._model.values(rows), strict=True)
        inputs = [
            {"name": f.name, "shape": [rows, 1], "datatype": "FP64", "data": data}
            if f.kind == "numeric"
            else {"name": f.name, "shape": [rows, 1], "datatype": "BYTES", "data": data}
            | {"parameters": {"content_type": "str"}}
            for f, data in zip(self._model.features, columns, strict=True)
        ]
        return {"parameters": {"content_type": "pd"}, "inputs": inputs}

    def _bentoml(self, name: str, batching: bool) -> Side:
        port, home = self._place(name)
        joblib.dump(self._model.pipeline, home / "model.joblib")
        (home / "service.py").write_text((Path(__file__).parent / "peers" / "bento.py").read_text())
        environ = {
            "MODEL": str(home / "model.joblib"),
            "WORKERS": str(WORKERS),
            "THREADS": "1",
            "BATCHING": str(int(batching)),
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_HOME": str(home / "bentoml"),
        }
        command = [str(self._peers / "bentoml"), "serve", "service:Scores", "--host", "127.0.0.1", "--port", str(port)]
        url = f"http://127.0.0.1:{port}/predict"
        route = Route(name, url, self._model, lambda rows: {"rows": self._model.values(rows)}, lambda answer: answer)
        return Side(command, environ, home, [route])

    def _place(self, name: str) -> tuple[int, Path]:
        home = self._folder / name
        home.mkdir(exist_ok=True)
        return find_ports(), home


def find_ports() -> int:
    """A port that is free, as is the next; servers that share ports would share the load, too."""
    while True:
        with socket.socket() as one, socket.socket() as next_one:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                next_one.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def _esteira_scores(answer: Any) -> list[float]:
    return [prediction["score"] for prediction in answer["predictions"]]
