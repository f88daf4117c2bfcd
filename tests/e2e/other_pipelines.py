"""Two more pipelines, made of data that scikit-learn ships, and a client that plays their loop.

`tumours` is a classification without event time; `diabetes` a regression with one. Their folders lie in `pipelines/`
beside this file; their raw files are written when a test runs.
"""

import csv
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import psutil
import requests
import skops.io
from google.cloud.pubsub_v1 import PublisherClient
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.metrics import brier_score_loss, log_loss, mean_absolute_error, r2_score, roc_auc_score

from esteira.bucket import Bucket
from esteira.events import Message
from esteira.release import ESTIMATOR, Pointer, pointer_path
from esteira.release_files import fetch_release
from esteira.runtime import ReleaseRuntime
from esteira_cli.stack import Stack

PIPELINES = Path(__file__).parent / "pipelines"
FINISHED = ("promoted", "approved", "rejected", "failed")
PATIENCE_S = 90.0

T = TypeVar("T")
Row = dict[str, Any]
Array = npt.NDArray[np.float64]
Metric = Callable[[Array, Array], float]


@dataclass(frozen=True)
class Scenario:
    """A pipeline and what happens to it."""

    pipeline: str
    target: str
    """The raw column that holds what is known after."""
    label: Callable[[Row], float | bool]
    entity: tuple[str, ...]
    first: list[Row]
    """What the first champion learns from."""
    alike: list[Row]
    """Rows like those."""
    shifted: list[Row]
    """Rows of a changed world."""
    main_metric: str
    metrics: Mapping[str, Metric]
    """scikit-learn's own measures, by the monitor's names."""

    def labels(self, rows: Sequence[Row]) -> Array:
        """The labels as the model is to foretell them."""
        return np.array([float(self.label(row)) for row in rows])

    def request(self, row: Row) -> Row:
        """What a client sends that does not know the target."""
        return {name: value for name, value in row.items() if name != self.target}

    def outcome(self, row: Row) -> Row:
        """What a client sends that knows the target by now."""
        return {"entity": {name: row[name] for name in self.entity}, "label": self.label(row)}


def tumours() -> Scenario:
    """The changed world: a second laboratory writes every figure with its decimal point one place too far left."""
    data = load_breast_cancer()
    names = data.feature_names.tolist()
    rows = []
    for number, index in enumerate(np.random.default_rng(0).permutation(len(data.target)).tolist()):
        apart = number >= 400
        measured = data.data[index] / (10 if apart else 1)
        diagnosis = data.target_names[data.target[index]]
        key = {"laboratory": "Porto|2" if apart else "Lisboa", "sample": number}
        rows.append({**key, **dict(zip(names, measured.tolist(), strict=True)), "diagnosis": str(diagnosis)})
    return Scenario(
        pipeline="tumours",
        target="diagnosis",
        label=lambda row: bool(row["diagnosis"] == "malignant"),
        entity=("laboratory", "sample"),
        first=rows[:300],
        alike=rows[300:400],
        shifted=rows[400:],
        main_metric="auc",
        metrics={"auc": roc_auc_score, "brier": brier_score_loss, "log_loss": log_loss},
    )


def diabetes() -> Scenario:
    """The changed world: another clinic, which no model has seen, measures progression on a scale of its own."""
    data = load_diabetes(scaled=False)
    rows = []
    for number, index in enumerate(np.random.default_rng(1).permutation(len(data.target)).tolist()):
        row: Row = dict(zip(data.feature_names, data.data[index].tolist(), strict=True))
        row |= {"age": int(row["age"]), "sex": int(row["sex"]), "s6": None if number % 17 == 0 else row["s6"]}
        row |= {"patient": number, "clinic": "south" if number >= 352 else "north", "visited_at": _visit(number)}
        rows.append({**row, "progression": float(data.target[index]) + (120 if number >= 352 else 0)})
    return Scenario(
        pipeline="diabetes",
        target="progression",
        label=lambda row: float(row["progression"]),
        entity=("patient",),
        first=rows[:262],
        alike=rows[262:352],
        shifted=rows[352:],
        main_metric="r2",
        metrics={"r2": r2_score, "mae": mean_absolute_error, "rmse": _root_mean_squared_error},
    )


def _visit(number: int) -> str:
    """Ten visits a day while the first file fills; then all others of a part on a day of its own."""
    day = number // 10 if number < 262 else 40 if number < 352 else 41
    moment = datetime(2024, 1, 1, 8, tzinfo=UTC) + timedelta(days=day, minutes=number)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _root_mean_squared_error(labels: Array, scores: Array) -> float:
    return float(np.sqrt(np.mean((labels - scores) ** 2)))


def stability(reference: list[int], current: Any) -> float:
    """The population stability index, written down anew."""
    floored = [np.maximum(np.asarray(counts) / np.sum(counts), 1e-4) for counts in (reference, current)]
    expected, actual = (shares / shares.sum() for shares in floored)
    return float(((actual - expected) * np.log(actual / expected)).sum())


def wait_for(what: str, look: Callable[[], T | None]) -> T:
    """Looks until it finds something; fails after `PATIENCE_S`."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {PATIENCE_S:.0f} s in vain for {what}")


def serving_workers(stack: Stack, **facts: str) -> set[int]:
    """The predictor's living workers that have said that they serve a release of these facts."""
    lines = stack.log("predictor").read_text().splitlines(keepends=True)
    told = [json.loads(line) for line in lines if "release in service" in line and line.endswith("}\n")]
    saying = {fact["worker"] for fact in told if facts.items() <= fact.items()}
    return {worker for worker in saying if _is_alive(worker)}


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def fetch(url: str) -> str:
    """The text of a page, which must be there."""
    with requests.Session() as session:
        session.trust_env = False
        response = session.get(url, timeout=30)
        assert response.status_code == 200, response.text
        return response.text


@dataclass(frozen=True)
class Answers:
    """What the predictor answered to some rows."""

    model_version: str
    scores: Array
    labels: list[bool | None]


class Client:
    """Someone who works with one pipeline, through nothing but the bucket and HTTP."""

    def __init__(self, stack: Stack, bucket: Bucket, pipeline: str) -> None:
        self._addresses = stack.addresses()
        self._bucket = bucket
        self.pipeline = pipeline

    def get(self, service: str, what: str = "") -> Any:
        """`GET /pipelines/<pipeline>[/<what>]`; None where there is nothing."""
        status, found = self._call("GET", service, what, None)
        return found if status == 200 else None

    def post(self, what: str, body: Any) -> Any:
        """`POST /pipelines/<pipeline>/<what>` to the predictor."""
        status, found = self._call("POST", "predictor", what, body)
        assert 200 <= status < 300, found
        return found

    def _call(self, method: str, service: str, what: str, body: Any) -> tuple[int, Any]:
        """On a connection of its own, so that any worker may answer."""
        url = f"{self._addresses[service]}/pipelines/{self.pipeline}" + (f"/{what}" if what else "")
        with requests.Session() as session:
            session.trust_env = False
            response = session.request(method, url, json=body, timeout=30)
            return response.status_code, response.json() if response.content else None

    def put(self, name: str, rows: Sequence[Row]) -> str:
        """Uploads a raw file; gives its path."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        path = f"raw/{self.pipeline}/{name}"
        self._bucket.upload_once(path, text.getvalue().encode(), "text/csv")
        return path

    def ingestion(self, path: str) -> Row:
        """How etl ended with the file."""

        def look() -> Row | None:
            found = (self.get("etl", "ingestions") or {"ingestions": []})["ingestions"]
            return next((row for row in found if row["object"] == path and row["status"] in ("done", "failed")), None)

        return wait_for(f"the ingestion of {path}", look)

    def served_by(self, version: str, rows: Sequence[Row]) -> Answers:
        """Asks for the scores of raw rows until the release of that version answers: workers follow one by one."""

        def look() -> Answers | None:
            status, answer = self._call("POST", "predictor", "predict", {"rows": list(rows)})
            return _answers(answer) if status == 200 and answer["model_version"] == version else None

        return wait_for(f"release {version} to serve {self.pipeline}", look)

    def runs(self) -> list[Row]:
        """The training runs, the newest first."""
        found = self.get("trainer", "runs")
        return list(found["runs"]) if found else []

    def finished_runs(self, requested_by: str, number: int = 1) -> list[Row]:
        """The training runs that somebody requested, once so many have ended."""

        def look() -> list[Row] | None:
            wanted = [run for run in self.runs() if run["requested_by"] == requested_by]
            return wanted if sum(run["status"] in FINISHED for run in wanted) >= number else None

        return wait_for(f"{number} training runs of {self.pipeline} requested by {requested_by}", look)

    def judged(self, version: str, labelled: int, decision: str) -> Row:
        """The newest window, once so many of the version's predictions have a label and the decision stands."""
        seen: list[Any] = []

        def look() -> Row | None:
            windows = self.get("monitor", "windows")["windows"]
            seen[:] = windows[-1:]
            found = [v for window in windows[-1:] for v in window["versions"] if v["model_version"] == version]
            right = found and (found[0].get("labelled"), found[0]["decision"]) == (labelled, decision)
            return found[0] if right else None

        try:
            return wait_for(f"the window with {labelled} labels to be {decision}", look)
        except AssertionError as error:
            raise AssertionError(f"{error}; the newest is {seen}") from None

    def runtime(self, cache: Path) -> tuple[ReleaseRuntime, Pointer]:
        """The promoted release, loaded in this process."""
        pointer = msgspec.json.decode(self._bucket.read(pointer_path(self.pipeline)), type=Pointer)
        folder = fetch_release(self._bucket, pointer.path, pointer.sha256, cache)
        return ReleaseRuntime(folder, pointer.sha256), pointer


def _answers(found: Row) -> Answers:
    predictions = found["predictions"]
    scores = np.array([prediction["score"] for prediction in predictions])
    return Answers(found["model_version"], scores, [prediction.get("label") for prediction in predictions])


def load_estimator(bucket: Bucket, pointer: Pointer, runtime: ReleaseRuntime) -> Any:
    """The fitted scikit-learn estimator of a release that this test has seen made."""
    data = bucket.read(f"{pointer.path}{ESTIMATOR}", runtime.release.files[ESTIMATOR].sha256)
    return skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))


def publish(project: str, *messages: Message) -> None:
    """Publishes through Google's own client, and waits until the server has it all."""
    with PublisherClient() as client:
        sent = [client.publish(f"projects/{project}/topics/{m.topic}", m.data, **m.attributes) for m in messages]
        for future in sent:
            future.result(timeout=30)
