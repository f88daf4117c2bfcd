"""Sets a challenger against the champion, on the held-out rows that neither was fitted on."""

import logging
from pathlib import Path
from typing import Any

import msgspec
import numpy.typing as npt
import pandas as pd

from esteira.bucket import Bucket
from esteira.exceptions import BadInput, NotFound, ReleaseRefused
from esteira.pipeline import LoadedPipeline
from esteira.promotions import PromotedRelease
from esteira.release import Gate
from esteira.release_files import fetch_release
from esteira.runtime import ReleaseRuntime
from esteira.scoring import Array
from trainer import gates
from trainer.compare import SliceDifference, compare, compare_slices
from trainer.evaluate import evaluate
from trainer.learners import encode_frame

logger = logging.getLogger(__name__)


class Defender(msgspec.Struct, frozen=True, kw_only=True):
    """The champion, if there is one, with its scores of the held-out rows, if it can score them."""

    champion: PromotedRelease | None
    scores: Array | None = None
    reason: str = ""
    """Why it cannot."""
    generation: int = 0
    """Of the ledger when it was asked for the champion; 0 before the first promotion."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What the comparison with the champion showed."""

    defender: Defender
    gates: list[Gate]
    metrics: dict[str, float]
    slices: list[SliceDifference]


def score_champion(
    bucket: Bucket, cache: Path, pipeline: LoadedPipeline, champion: PromotedRelease | None, rows: pd.DataFrame
) -> Defender:
    """Scores rows with the champion's release, as the predictor would.

    Raises:
        Unavailable: the bucket does not answer.
    """
    if champion is None:
        return Defender(champion=None)
    try:
        folder = fetch_release(bucket, champion.path, champion.sha256, cache / "releases")
        runtime = ReleaseRuntime(folder, champion.sha256)
        reason = why_incomparable(runtime, pipeline, rows)
        scores = None if reason else runtime.model.score(encode_frame(runtime.release.features, rows))
        runtime.close()
    except (ReleaseRefused, NotFound, BadInput) as error:
        scores, reason = None, str(error)
    if reason:
        logger.error("champion cannot be compared", extra={"version": champion.version, "reason": reason})
    return Defender(champion=champion, scores=scores, reason=reason)


def why_incomparable(runtime: ReleaseRuntime, pipeline: LoadedPipeline, rows: pd.DataFrame) -> str:
    """Why the release cannot score these rows of the pipeline as it is now; empty where it can."""
    missing = [feature.name for feature in runtime.release.features if feature.name not in rows]
    if missing:
        return f"the dataset lacks its features {', '.join(missing)}"
    if runtime.release.task != pipeline.spec.task or runtime.release.label != pipeline.spec.label.name:
        return f"it predicts {runtime.release.label}, the pipeline {pipeline.spec.label.name} by now"
    return ""


def judge(pipeline: LoadedPipeline, defender: Defender, rows: pd.DataFrame, label: Array, scores: Array) -> Judgement:
    """Holds the challenger's scores against the champion's.

    Args:
        pipeline: declares slices and how much may be lost.
        defender: the champion's scores.
        rows: the held-out rows.
        label: theirs.
        scores: the challenger's.
    """
    if defender.champion is None:
        return Judgement(defender=defender, gates=[gates.no_champion_gate()], metrics={}, slices=[])
    version = defender.champion.version
    if defender.scores is None:
        gate = gates.incomparable_gate(version, defender.reason)
        return Judgement(defender=defender, gates=[gate], metrics={}, slices=[])
    task, spec = pipeline.spec.task, pipeline.spec.gates
    difference = compare(task, label, scores, defender.scores, spec.confidence)
    slices = [
        found
        for name in spec.slices
        for found in compare_slices(task, name, _texts(rows, name), label, scores, defender.scores, spec.confidence)
    ]
    judged = [gates.champion_gate(version, difference, spec), *gates.slices_gates(slices, spec.slices, spec)]
    metrics = {f"champion_{name}": value for name, value in evaluate(task, label, defender.scores).items()}
    metrics |= {"difference": difference.value, "difference_low": difference.low, "difference_high": difference.high}
    return Judgement(defender=defender, gates=judged, metrics=metrics, slices=slices)


def first_share(pipeline: LoadedPipeline, defender: Defender) -> float | None:
    """Of entities that an approved release shall answer for at once, or score; None leaves that to a person.

    A first release has no champion to challenge, and is promoted.
    """
    spec = pipeline.spec
    if spec.promotion == "manual" or defender.reason:
        return None
    tried_out = spec.promotion in ("canary", "shadow") and defender.champion is not None
    return spec.canary.share if tried_out else 1.0


def _texts(rows: pd.DataFrame, name: str) -> npt.NDArray[Any]:
    return rows[name].astype(object).where(rows[name].notna(), "missing").astype(str).to_numpy(dtype=str)
