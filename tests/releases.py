"""Builds small real releases: raw rows, features.sql, a fitted scikit-learn model and its exact export."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import msgspec
import numpy as np
import pandas as pd

from esteira.bucket import Bucket
from esteira.dataset import Manifest, Part
from esteira.features import FeatureQuery, create_references
from esteira.lineage import find_redaction
from esteira.pipeline import LoadedPipeline, load_pipeline
from esteira.profile import SCORE, Profile, describe_categorical, describe_numeric
from esteira.release import (
    EXPLANATION,
    MANIFEST,
    MODEL,
    PROFILE,
    STATEMENT,
    TREES,
    Dataset,
    FeatureForm,
    File,
    LogRules,
    Pointer,
    Release,
    pointer_path,
    release_path,
)
from esteira.schema import Row, check_row, quote
from esteira.scoring import Task
from esteira.sqlite_form import form_sha256, translate
from esteira.statement import Statement, compile_statement
from trainer.export import export_explanation, export_model, export_trees
from trainer.learners import build_pipeline, encode_frame, fit, learn_features, predict_scores
from trainer.serving_form import write_form

PIPELINE = """\
pipeline: shop
task: {task}
entity: [id]
event_time: at
label: {{name: late, sql: {label}}}
columns:
  id: {{type: integer}}
  at: {{type: timestamp}}
  price: {{type: number, min: 0, nullable: true}}
  town: {{type: string, max_length: 20, nullable: true}}
  delay: {{type: integer, nullable: true, known: after}}
reference:
  towns: {{file: towns.csv, columns: {{town: string, size: integer}}}}
"""
FEATURES = """\
SELECT raw.price, raw.price * 1e300 * 1e10 AS huge, raw.town, towns.size
FROM raw LEFT JOIN towns ON towns.town = raw.town
"""
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def write_pipeline(folder: Path, task: str = "classification") -> LoadedPipeline:
    """Writes the pipeline `shop` below `folder` and loads it."""
    home = folder / "shop"
    home.mkdir(parents=True, exist_ok=True)
    label = "delay > 15" if task == "classification" else "delay"
    (home / "pipeline.yaml").write_text(PIPELINE.format(task=task, label=label))
    (home / "features.sql").write_text(FEATURES)
    (home / "towns.csv").write_text("town,size\nParis,3\nRome,2\nOslo,1\n")
    return load_pipeline(home)


def raw_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows as a request has them."""
    generator = np.random.default_rng(seed)
    towns = ["Paris", "Rome", "Oslo", "Elsewhere", None]
    return [
        {
            "id": index,
            "at": f"2026-01-{index % 28 + 1:02d}T10:00:00Z",
            "price": None if index % 11 == 0 else round(float(generator.uniform(0, 100)), 2),
            "town": towns[int(generator.integers(len(towns)))],
        }
        for index in range(count)
    ]


class BuiltRelease(msgspec.Struct, frozen=True):
    """A release folder, and the scikit-learn estimator that it was exported from."""

    folder: Path
    release: Release
    sha256: str
    estimator: Any
    task: Task

    def expected(self, features: Mapping[str, list[Any]]) -> list[float]:
        """What scikit-learn itself scores."""
        frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in features.items()})
        scores: list[float] = predict_scores(
            self.estimator, encode_frame(self.release.features, frame), self.task
        ).tolist()
        return scores

    def upload(self, bucket: Bucket) -> None:
        """Writes the release to the bucket, its manifest last."""
        base = release_path(self.release.pipeline, self.release.version)
        for name in [*self.release.files, MANIFEST]:
            bucket.upload_once(f"{base}{name}", self.folder / name)

    def pointer(self, generation: int = 1) -> Pointer:
        """The pointer that names this release."""
        return Pointer(
            pipeline=self.release.pipeline,
            generation=generation,
            version=self.release.version,
            path=release_path(self.release.pipeline, self.release.version),
            sha256=self.sha256,
            promoted_at=MOMENT,
            reason="beats its champion",
        )

    def promote(self, bucket: Bucket, generation: int = 1) -> None:
        """Points the bucket at this release."""
        path = pointer_path(self.release.pipeline)
        found = bucket.read_versioned(path)
        bucket.write_if(path, msgspec.json.encode(self.pointer(generation)), found[1] if found else 0)


def build_release(
    folder: Path,
    version: str = "v1",
    task: str = "classification",
    seed: int = 0,
    *,
    sqlite: bool = True,
    rules: LogRules = LogRules(),  # noqa: B008  frozen
) -> BuiltRelease:
    """Fits, exports and writes a release of the pipeline `shop` to `folder/<version>`.

    Args:
        sqlite: whether it carries the SQLite form of features.sql too.
        rules: of its log.
    """
    pipeline = write_pipeline(folder / "pipelines", task)
    pipeline = msgspec.structs.replace(pipeline, spec=msgspec.structs.replace(pipeline.spec, prediction_log=rules))
    return build_release_of(pipeline, raw_rows(400, seed), folder, version, seed, sqlite=sqlite)


def build_release_of(
    pipeline: LoadedPipeline,
    rows: list[dict[str, Any]],
    folder: Path,
    version: str = "v1",
    seed: int = 0,
    *,
    sqlite: bool = True,
) -> BuiltRelease:
    """As `build_release`, of any pipeline, on these rows; the first feature must be a number."""
    task = pipeline.spec.task
    statement = compile_statement(pipeline)
    home = folder / version
    home.mkdir(parents=True)
    references = _write_references(home, pipeline)
    query = FeatureQuery(statement.sql, pipeline.columns, {name: home / file for name, file in references.items()})
    columns = query.run([_typed(pipeline, row) for row in rows])
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    features = learn_features(frame, {feature.name: feature.kind for feature in statement.features})
    matrix = encode_frame(features, frame)
    model_task: Task = "binary" if task == "classification" else "regression"
    signal = np.nan_to_num(matrix[:, 0]) + np.random.default_rng(seed).normal(0, 20, len(matrix))
    target = (signal > 50).astype(int) if model_task == "binary" else signal
    learner = build_pipeline("hist_gradient_boosting", features, model_task, {"max_iter": 10})
    estimator = fit(learner, features, matrix, target)
    scores = predict_scores(estimator, matrix, model_task)
    (home / MODEL).write_bytes(export_model(estimator, features, model_task))
    (home / TREES).write_bytes(export_trees(estimator, features, model_task))
    (home / EXPLANATION).write_bytes(export_explanation(estimator, features, matrix))
    (home / STATEMENT).write_text(pipeline.features_sql)
    binned = [
        (describe_numeric if feature.kind == "numeric" else describe_categorical)(feature.name, columns[feature.name])
        for feature in features
    ]
    profile = Profile(features=binned, score=describe_numeric(SCORE, scores), rows=len(rows))
    (home / PROFILE).write_bytes(msgspec.json.encode(profile))
    form = _write_form(home, pipeline, statement) if sqlite else FeatureForm(reason="not wanted")
    release = Release(
        pipeline=pipeline.name,
        version=version,
        task=task,
        created_at=MOMENT,
        label=pipeline.spec.label.name,
        entity=pipeline.spec.entity,
        event_time=pipeline.spec.event_time,
        columns=[column for column in pipeline.columns if column.known == "before"],
        null_values=pipeline.spec.null_values,
        features=features,
        statement=statement.sql,
        reference=references,
        learner="hist_gradient_boosting",
        threshold=0.5 if model_task == "binary" else None,
        metrics={"auc": 0.8},
        gates=[],
        dataset=Dataset(number=1, version="0" * 16, manifest="m", rows=len(rows), labelled=len(rows)),
        training_run_id="run",
        mlflow_run_id=None,
        code_version="test",
        seed=seed,
        example=rows[:3],
        example_scores=scores[:3].tolist(),
        files=_hash_files(home),
        form=form,
        prediction_log=pipeline.spec.prediction_log,
        redaction=find_redaction(pipeline, statement),
    )
    return BuiltRelease(home, release, write_manifest(home, release), estimator, model_task)


def _write_form(home: Path, pipeline: LoadedPipeline, statement: Statement) -> FeatureForm:
    """As if etl had proved it for the one part of the dataset."""
    before = [column for column in pipeline.columns if column.known == "before"]
    proved = form_sha256(translate(statement.sql, before))
    part = Part(path="p", sha256="0", rows=400, labelled=400, ingestion_id=UUID(int=0), sqlite_sha256=proved)
    manifest = Manifest(
        pipeline=pipeline.name,
        number=1,
        version="0" * 16,
        features=statement.features,
        statement_sha256="0",
        parts=[part],
        rows=400,
        labelled=400,
        created_at=MOMENT,
    )
    return write_form(home, pipeline, statement, manifest)


def write_manifest(folder: Path, release: Release) -> str:
    """Writes release.json; gives its sha256."""
    data = msgspec.json.encode(release)
    (folder / MANIFEST).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _typed(pipeline: LoadedPipeline, row: dict[str, Any]) -> Row:
    typed, problems = check_row(pipeline.columns, row, "row")
    assert not problems
    return typed


def _write_references(home: Path, pipeline: LoadedPipeline) -> dict[str, str]:
    files = {name: f"reference/{name}.parquet" for name in pipeline.spec.reference}
    (home / "reference").mkdir()
    with duckdb.connect(":memory:") as connection:
        create_references(connection, pipeline.folder, pipeline.spec.reference)
        for name, file in files.items():
            connection.sql(f"FROM {quote(name)}").write_parquet(str(home / file))
    return files


def _hash_files(home: Path) -> dict[str, File]:
    paths = sorted(path for path in home.rglob("*") if path.is_file())
    return {
        path.relative_to(home).as_posix(): File(hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        for path in paths
    }
