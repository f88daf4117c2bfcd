"""Builds a release, proves that it works, and brings it to the bucket."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from esteira.bucket import Bucket
from esteira.dataset import Manifest
from esteira.exceptions import Conflict, ReleaseRefused, Unavailable
from esteira.lineage import find_redaction
from esteira.pipeline import LoadedPipeline
from esteira.release import MANIFEST, Dataset, Gate, Release, release_path
from esteira.runtime import ReleaseRuntime
from esteira.scoring import OnnxModel
from esteira.statement import Statement
from trainer import gates, packaging
from trainer.data import Data
from trainer.examples import Examples
from trainer.explaining import explain_model
from trainer.exporting import Exported
from trainer.fit import MODEL_TASK, Candidate, Matrices
from trainer.learners import encode_frame, predict_scores
from trainer.rows import DatasetVersion, TrainingRun
from trainer.serving_form import prove_form, write_form

DECISION = 0.5


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a release comes from."""

    pipeline: LoadedPipeline
    statement: Statement
    run: TrainingRun
    dataset: DatasetVersion
    manifest: Manifest
    code_version: str
    mlflow_run_id: str


class Packed(msgspec.Struct, frozen=True):
    """A release in a local folder, and the sha256 of its release.json."""

    release: Release
    folder: Path
    sha256: str


def version_of(run: TrainingRun) -> str:
    """The run's number; a later attempt adds its fence, for an earlier one may have left files behind."""
    return str(run.number) if run.fence == 1 else f"{run.number}.{run.fence}"


def pack(
    folder: Path,
    origin: Origin,
    data: Data,
    matrices: Matrices,
    best: Candidate,
    exported: Exported,
    examples: Examples,
    passed: Sequence[Gate],
) -> Packed:
    """Writes the release's folder, loads it as the predictor will, and adds what that shows to its gates."""
    packaging.write_model(folder, exported.model, exported.trees, best.estimator)
    explained = _explain(folder, origin, matrices, best, exported.model)
    reference = packaging.write_statement(folder, origin.pipeline)
    packaging.write_profile(folder, matrices.features, data.frame, best.scores)
    form = write_form(folder, origin.pipeline, origin.statement, origin.manifest)
    release = _describe(origin, matrices, best, examples, reference, folder)
    release = msgspec.structs.replace(release, form=prove_form(folder, release, form))
    packaging.write_manifest(folder, release)
    judged = [*passed, *exported.gates, explained, gates.size_gate(packaging.serving_size(release)), *_try(folder)]
    release = msgspec.structs.replace(release, gates=judged)
    return Packed(release, folder, packaging.write_manifest(folder, release))


def _explain(folder: Path, origin: Origin, matrices: Matrices, best: Candidate, model: bytes) -> Gate:
    spec = origin.pipeline.spec
    served = OnnxModel(model, MODEL_TASK[spec.task], matrices.features)
    explanation, gate = explain_model(best.estimator, matrices, served, spec.training.seed)
    if explanation is not None:
        packaging.write_explanation(folder, explanation)
    return gate


def _try(folder: Path) -> list[Gate]:
    try:
        runtime = ReleaseRuntime(folder)
    except ReleaseRefused as error:
        return [gates.smoke_gate(str(error), passed=False)]
    count = len(runtime.release.example)
    smoke = gates.smoke_gate(f"{count} example rows answered as scikit-learn did on etl's features", passed=True)
    latency = gates.latency_gate(packaging.measure_latency(runtime))
    runtime.close()
    return [smoke, latency]


def _describe(
    origin: Origin,
    matrices: Matrices,
    best: Candidate,
    examples: Examples,
    reference: dict[str, str],
    folder: Path,
) -> Release:
    spec, run = origin.pipeline.spec, origin.run
    answers = encode_frame(matrices.features, examples.frame)
    scores = predict_scores(best.estimator, answers, MODEL_TASK[spec.task]).tolist() if examples.rows else []
    return Release(
        pipeline=origin.pipeline.name,
        version=version_of(run),
        task=spec.task,
        created_at=datetime.now(UTC),
        label=spec.label.name,
        entity=spec.entity,
        event_time=spec.event_time,
        columns=[column for column in origin.pipeline.columns if column.known == "before"],
        prediction_log=spec.prediction_log,
        null_values=spec.null_values,
        redaction=find_redaction(origin.pipeline, origin.statement),
        features=matrices.features,
        statement=origin.statement.sql,
        reference=reference,
        learner=best.learner,
        threshold=DECISION if spec.task == "classification" else None,
        metrics=best.metrics,
        gates=[],
        dataset=_dataset(origin.dataset),
        training_run_id=str(run.id),
        mlflow_run_id=origin.mlflow_run_id,
        code_version=origin.code_version,
        seed=spec.training.seed,
        example=examples.rows,
        example_scores=scores,
        files=packaging.list_files(folder),
        parameters=best.params,
    )


def _dataset(dataset: DatasetVersion) -> Dataset:
    return Dataset(
        number=dataset.number,
        version=dataset.version,
        manifest=dataset.manifest,
        rows=dataset.rows,
        labelled=dataset.labelled,
    )


def upload(bucket: Bucket, packed: Packed) -> None:
    """Writes every file once, release.json last: a release is whole when that is there.

    Raises:
        Unavailable: the bucket does not answer, or holds another release of this version, as it may after Postgres
            came back from a backup; the next attempt has a version of its own.
    """
    target = release_path(packed.release.pipeline, packed.release.version)
    try:
        with ThreadPoolExecutor(4) as pool:
            names = packed.release.files
            list(pool.map(lambda name: bucket.upload_once(f"{target}{name}", packed.folder / name), names))
        bucket.upload_once(f"{target}{MANIFEST}", packed.folder / MANIFEST, "application/json")
    except Conflict as error:
        raise Unavailable(str(error)) from error
