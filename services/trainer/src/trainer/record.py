"""What MLflow keeps of an attempt."""

import shutil
from pathlib import Path
from typing import Any

import msgspec

from esteira.dataset import encode_manifest
from esteira.release import Gate
from esteira.scoring import Array
from trainer.compare import SliceDifference
from trainer.fit import Candidate
from trainer.gates import as_table
from trainer.plots import write_plots
from trainer.releasing import Origin, Packed
from trainer.tracking import RELEASE_FOLDER, Tracking, installed_requirements, mlmodel


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt found."""

    origin: Origin
    candidates: list[Candidate]
    """Best first; empty where nothing was fitted."""
    label: Array
    """Of the held-out rows."""
    gates: list[Gate]
    slices: list[SliceDifference]
    metrics: dict[str, float]
    verdict: str
    packed: Packed | None


def log_attempt(tracking: Tracking, attempt: Attempt, folder: Path) -> None:
    """Writes parameters, metrics, gates, plots, requirements, the dataset's manifest and the release's files.

    Args:
        tracking: where to.
        attempt: what was found.
        folder: an empty local folder to gather files in.

    Raises:
        Unavailable: MLflow or its artifact store does not answer.
    """
    run_id = attempt.origin.mlflow_run_id
    tracking.log(run_id, _params(attempt), _metrics(attempt), {"verdict": attempt.verdict})
    tracking.log_table(run_id, as_table(attempt.gates), "gates.json")
    _gather(folder, attempt)
    tracking.log_folder(run_id, folder)


def _gather(folder: Path, attempt: Attempt) -> None:
    (folder / "requirements.txt").write_text(installed_requirements(), "utf-8")
    (folder / "dataset.json").write_bytes(encode_manifest(attempt.origin.manifest))
    (folder / "slices.json").write_bytes(msgspec.json.encode(attempt.slices))
    if attempt.candidates:
        scores = {candidate.learner: candidate.scores for candidate in attempt.candidates}
        write_plots(folder, attempt.origin.pipeline.spec.task, attempt.label, scores)
    if attempt.packed is not None:
        shutil.copytree(attempt.packed.folder, folder / RELEASE_FOLDER)
        (folder / RELEASE_FOLDER / "MLmodel").write_text(mlmodel(attempt.origin.mlflow_run_id), "utf-8")


def _metrics(attempt: Attempt) -> dict[str, float]:
    others = {
        f"{candidate.learner.replace('.', '_')}_{name}": value
        for candidate in attempt.candidates
        for name, value in {**candidate.metrics, "fit_seconds": candidate.seconds}.items()
    }
    return attempt.metrics | others


def _params(attempt: Attempt) -> dict[str, Any]:
    origin, dataset = attempt.origin, attempt.origin.dataset
    params = {
        "dataset_number": dataset.number,
        "dataset_version": dataset.version,
        "dataset_manifest": dataset.manifest,
        "labelled_rows": dataset.labelled,
        "holdout": msgspec.json.encode(origin.pipeline.spec.training.holdout).decode(),
        "seed": origin.pipeline.spec.training.seed,
        "code_version": origin.code_version,
    }
    if attempt.candidates:
        best = attempt.candidates[0]
        params |= {"learner": best.learner, **{f"model.{name}": value for name, value in best.params.items()}}
    return params
