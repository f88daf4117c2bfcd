"""Writes the folder of a release: everything that serving needs, each file named by its hash."""

import hashlib
import statistics
import time
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import skops.io

from esteira.features import create_references
from esteira.pipeline import LoadedPipeline
from esteira.profile import SCORE, Profile, describe_categorical, describe_numeric
from esteira.release import ESTIMATOR, EXPLANATION, MANIFEST, MODEL, PROFILE, STATEMENT, TREES, File, Release
from esteira.runtime import ReleaseRuntime
from esteira.schema import Feature, check_row, quote
from esteira.scoring import Array

PROFILED_ROWS = 100_000
TIMED_ROWS = 30


def write_model(folder: Path, model: bytes, trees: bytes | None, estimator: Any) -> None:
    """Writes the model to serve, in one form or two, and the estimator to look into."""
    (folder / MODEL).write_bytes(model)
    if trees is not None:
        (folder / TREES).write_bytes(trees)
    (folder / ESTIMATOR).write_bytes(skops.io.dumps(estimator))


def write_explanation(folder: Path, explanation: bytes) -> None:
    """Writes what explains the model's scores."""
    (folder / EXPLANATION).write_bytes(explanation)


def write_statement(folder: Path, pipeline: LoadedPipeline) -> dict[str, str]:
    """Writes features.sql as its author wrote it, and its reference tables; gives the file of each table."""
    (folder / STATEMENT).write_text(pipeline.features_sql, "utf-8")
    files = {name: f"reference/{name}.parquet" for name in pipeline.spec.reference}
    (folder / "reference").mkdir(exist_ok=True)
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        create_references(connection, pipeline.folder, pipeline.spec.reference)
        for name, file in files.items():
            connection.sql(f"FROM {quote(name)}").write_parquet(str(folder / file), compression="zstd")
    return files


def write_profile(folder: Path, features: list[Feature], frame: pd.DataFrame, scores: Array) -> None:
    """Writes how features are spread over all labelled rows, and scores over the held-out ones.

    Held-out days alone would be few, and their weather or sales no measure for other days; scores of rows that the
    model was fitted on would be too sure of themselves.
    """
    sample = frame.iloc[:: max(1, -(-len(frame) // PROFILED_ROWS))]
    binned = [
        describe_numeric(feature.name, _numbers(sample[feature.name]))
        if feature.kind == "numeric"
        else describe_categorical(feature.name, sample[feature.name].astype(object).tolist())
        for feature in features
    ]
    profile = Profile(features=binned, score=describe_numeric(SCORE, scores), rows=len(sample))
    (folder / PROFILE).write_bytes(msgspec.json.encode(profile))


def _numbers(column: "pd.Series[Any]") -> npt.NDArray[np.float64]:
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def list_files(folder: Path) -> dict[str, File]:
    """Hashes every file of the release but its manifest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: _file(path) for name, path in names.items() if name != MANIFEST}


def _file(path: Path) -> File:
    data = path.read_bytes()
    return File(hashlib.sha256(data).hexdigest(), len(data))


def write_manifest(folder: Path, release: Release) -> str:
    """Writes release.json; gives its sha256."""
    data = msgspec.json.format(msgspec.json.encode(release), indent=1)
    (folder / MANIFEST).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def serving_size(release: Release) -> int:
    """The bytes that a predictor loads."""
    return sum(file.size for name, file in release.files.items() if name != ESTIMATOR)


def measure_latency(runtime: ReleaseRuntime) -> float:
    """The median of milliseconds from one typed raw row to its score; of an empty matrix row without an example."""
    example = runtime.release.example
    row = check_row(runtime.release.columns, example[0], "")[0] if example else None
    empty = np.full((1, len(runtime.release.features)), np.nan)
    times = []
    for _ in range(TIMED_ROWS):
        begun = time.perf_counter()
        if row is None:
            runtime.model.score(empty)
        else:
            runtime.score_rows(runtime.feature_rows([tuple(row.values())]))
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000
