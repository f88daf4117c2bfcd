"""Sends recorded requests of production through this code, and holds every answer against the recorded one.

`python -m predictor.replay --release DIR --sample FILE --report OUT.json`: a check that a change of this service, or of
what it shares with others, brings along for itself. It needs the files alone: no bucket, no Pub/Sub, no network.
"""

import argparse
import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from flask.testing import FlaskClient

import predictor
from esteira.exceptions import EsteiraError
from esteira.publisher import Publisher
from esteira.release import MANIFEST, Pointer, Release
from esteira.runtime import SMOKE_TOLERANCE
from esteira.samples import Sample, SampledPrediction
from predictor.app import create_app
from predictor.decoding import MAX_ROWS
from predictor.prediction_log import LoggedPrediction, PredictionLog
from predictor.served import ServedRelease
from predictor.serving import Serving, Servings

MAX_DIFFERENCES = 500


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a request, and what the answer to it was."""

    id: str
    row: dict[str, Any]
    """A raw row; or the features, where columns of the raw row are not logged."""
    score: float
    label: bool | None
    features: list[float | str | None] | None
    """None where only the score was recorded."""
    kind: Literal["rows", "features"] = "rows"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that this code answers otherwise."""

    id: str
    path: str
    """`score`, `label`, `status`, `features.<name>`; with `batch.` before it where rows were sent together."""
    expected: Any
    got: Any


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the replay showed."""

    pipeline: str
    version: str
    source: str
    """`recorded` requests, or the release's own `example` where none were recorded."""
    rows: int
    rows_differing: int
    tolerance: float
    refused: str | None
    """Why this code does not take the release into service."""
    differences: list[Difference]
    """The first of them."""
    scores: list[tuple[float, float | None]]
    """Recorded and new score of each row."""
    code: str
    """The folder of the code that answered."""
    by_features: int = 0
    """Of the rows, those that were sent as features, for their raw rows are not logged whole: features.sql did not
    run for them."""

    @property
    def passed(self) -> bool:
        """Whether this code may serve the release."""
        return self.refused is None and self.rows_differing == 0


class RecordingLog(PredictionLog):
    """Keeps the predictions of the last request, to look at their features."""

    def __init__(self) -> None:
        super().__init__(Publisher("replay"), Path(tempfile.gettempdir()))
        self.last: Sequence[LoggedPrediction] = []

    def write(
        self,
        pipeline: str,  # noqa: ARG002
        model_version: str,  # noqa: ARG002
        records: Iterable[tuple[int, bytes]],
        *_: Any,
        **__: Any,
    ) -> None:
        """Takes the place of what was kept before."""
        parts = [msgspec.json.decode(b"[%b]" % part, type=list[LoggedPrediction]) for _, part in records]
        self.last = [one for part in parts for one in part]


class LocalServings(Servings):
    """Serves one release from its folder."""

    def __init__(self, serving: Serving) -> None:
        super().__init__(Path(tempfile.gettempdir()))
        self._local = serving

    def get(self, pipeline: str) -> Serving:  # noqa: ARG002  there is one
        """The release."""
        return self._local

    def find(self, pipeline: str) -> Serving | None:
        """The release."""
        return self.get(pipeline)


class UnprovedRuntime(ServedRelease):
    """A release without its smoke test, to name the rows that differ where it would be refused."""

    def _smoke_test(self) -> None:
        return


class Replay:
    """Sends rows through the real route of the app."""

    def __init__(self, runtime: ServedRelease, manifest_sha256: str, tolerance: float) -> None:
        release = runtime.release
        pointer = Pointer(
            pipeline=release.pipeline,
            generation=1,
            version=release.version,
            path="",
            sha256=manifest_sha256,
            promoted_at=release.created_at,
        )
        self._log = RecordingLog()
        app = create_app(LocalServings(Serving(pointer, runtime)), self._log, Publisher("replay"), None)
        self._client: FlaskClient = app.test_client()
        self._release = release
        self._tolerance = tolerance
        self.scores: list[tuple[float, float | None]] = []

    def run(self, expected: Sequence[Expected]) -> list[Difference]:
        """Sends each row alone, then those that were answered in one request together."""
        found: list[Difference] = []
        answered: list[Expected] = []
        for row in expected:
            status, body = self._send([row])
            if status != 200:
                self.scores.append((row.score, None))
                found.append(Difference(id=row.id, path="status", expected=200, got=_told(status, body)))
                continue
            answered.append(row)
            self.scores.append((row.score, body["predictions"][0]["score"]))
            found += self._compare(row, body["predictions"][0], self._log.last[0], "")
        for kind in ("rows", "features"):
            alike = [row for row in answered if row.kind == kind]
            for start in range(0, len(alike), MAX_ROWS):
                found += self._together(alike[start : start + MAX_ROWS])
        return found

    def _together(self, rows: list[Expected]) -> list[Difference]:
        status, body = self._send(rows)
        if status != 200 or len(body["predictions"]) != len(rows):
            told = _told(status, body) if status != 200 else f"{len(body['predictions'])} answers"
            return [Difference(id="all rows", path="batch.status", expected=200, got=told)]
        triples = zip(rows, body["predictions"], self._log.last, strict=True)
        return [found for row, answer, logged in triples for found in self._compare(row, answer, logged, "batch.")]

    def _send(self, rows: Sequence[Expected]) -> tuple[int, Any]:
        body = msgspec.json.encode({rows[0].kind: [row.row for row in rows]})
        address = f"/pipelines/{self._release.pipeline}/predict"
        answer = self._client.post(address, data=body, content_type="application/json")
        return answer.status_code, msgspec.json.decode(answer.data)

    def _compare(
        self, expected: Expected, answer: dict[str, Any], logged: LoggedPrediction, prefix: str
    ) -> Iterator[Difference]:
        pairs: list[tuple[str, Any, Any]] = [
            ("score", expected.score, answer["score"]),
            ("label", expected.label, answer.get("label")),
        ]
        if expected.features is not None:
            pairs += self._features(expected.features, logged.features)
        for path, was, now in pairs:
            if not self._same(path, was, now):
                yield Difference(id=expected.id, path=f"{prefix}{path}", expected=was, got=now)

    def _features(self, was: list[Any], now: Sequence[Any]) -> list[tuple[str, Any, Any]]:
        names = [f"features.{feature.name}" for feature in self._release.features]
        if not len(names) == len(was) == len(now):
            return [("features", was, now)]
        return list(zip(names, was, now, strict=True))

    def _same(self, path: str, was: Any, now: Any) -> bool:
        if path == "score" and isinstance(now, float):
            return bool(was == now or abs(was - now) <= self._tolerance)
        return bool(was == now)


def _told(status: int, body: Any) -> str:
    error = body.get("error", {}) if isinstance(body, dict) else {}
    problems = [f"{problem['path']}: {problem['message']}" for problem in error.get("problems", [])]
    return f"{status} {'; '.join(problems) or error.get('message', '')}".strip()


def replay(folder: Path, sample: Sample | None, tolerance: float) -> Report:
    """Replays the sample, or else the release's own example rows, with the release in `folder`.

    Args:
        sample: recorded requests of this release; None where there are none.
        tolerance: by how much a score may differ from the recorded one; for example rows, which training scored,
            at least the smoke test's.
    """
    manifest = (folder / MANIFEST).read_bytes()
    digest = hashlib.sha256(manifest).hexdigest()
    release = msgspec.json.decode(manifest, type=Release)
    recorded = sample is not None and bool(sample.predictions)
    expected = _from_sample(sample, release) if sample is not None and recorded else _from_example(release)
    tolerance = tolerance if recorded else max(tolerance, SMOKE_TOLERANCE)
    found: list[Difference] = []
    scores: list[tuple[float, float | None]] = []
    refused = None
    try:
        runtime: ServedRelease | None = ServedRelease(folder, digest)
    except EsteiraError as error:
        refused = str(error)
        runtime = _unproved(folder, digest)
    if runtime is not None:
        played = Replay(runtime, digest, tolerance)
        found, scores = played.run(expected), played.scores
        runtime.close()
    return Report(
        pipeline=release.pipeline,
        version=release.version,
        source="recorded" if recorded else "example",
        rows=len(expected),
        rows_differing=len({difference.id for difference in found}),
        tolerance=tolerance,
        refused=refused,
        differences=found[:MAX_DIFFERENCES],
        scores=scores,
        by_features=sum(row.kind == "features" for row in expected),
        code=str(Path(predictor.__file__).parent),
    )


def _unproved(folder: Path, digest: str) -> ServedRelease | None:
    try:
        return UnprovedRuntime(folder, digest)
    except EsteiraError:
        return None


def _from_sample(sample: Sample, release: Release) -> list[Expected]:
    return [_recorded(prediction, release) for prediction in sample.predictions]


def _recorded(p: SampledPrediction, release: Release) -> Expected:
    whole = Expected(id=str(p.id), row=p.row, score=p.score, label=p.label, features=p.features)
    if release.redaction.has_clear_row(p.id):
        return whole
    named = {feature.name: value for feature, value in zip(release.features, p.features, strict=True)}
    return msgspec.structs.replace(whole, row=named, kind="features")


def _from_example(release: Release) -> list[Expected]:
    return [
        Expected(
            id=f"example[{position}]",
            row=row,
            score=score,
            label=None if release.threshold is None else score >= release.threshold,
            features=None,
        )
        for position, (row, score) in enumerate(zip(release.example, release.example_scores, strict=True))
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, replays, and writes the report; that answers differ is no failure of the replay."""
    parser = argparse.ArgumentParser(prog="python -m predictor.replay", description=__doc__)
    parser.add_argument("--release", type=Path, required=True, help="the folder of a release's serving files")
    parser.add_argument("--sample", type=Path, help="recorded requests, as the monitor writes them")
    parser.add_argument("--report", type=Path, required=True, help="where to write the report, as JSON")
    parser.add_argument("--tolerance", type=float, default=0.0, help="by how much a score may differ")
    given = parser.parse_args(arguments)
    sample = msgspec.json.decode(given.sample.read_bytes(), type=Sample) if given.sample else None
    report = replay(given.release, sample, given.tolerance)
    given.report.write_bytes(msgspec.json.encode({"passed": report.passed, **msgspec.to_builtins(report)}))


if __name__ == "__main__":
    main()
