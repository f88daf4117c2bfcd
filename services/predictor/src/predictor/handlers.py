"""What the predictor says of itself: the pipelines that it serves."""

from collections.abc import Callable
from typing import Any

import msgspec

from predictor.prediction_log import PredictionLog
from predictor.serving import Serving, Servings
from predictor.state import LogState


def _is_asked_by_all(_: str) -> bool:
    return True


def list_pipelines(servings: Servings, may_ask: Callable[[str], bool] = _is_asked_by_all) -> list[dict[str, Any]]:
    """Every pipeline served here that the caller may ask, and those whose release was refused."""
    served: list[dict[str, Any]] = [
        {"pipeline": s.pointer.pipeline, "version": s.pointer.version, "generation": s.pointer.generation}
        for s in servings.all()
    ]
    names = {entry["pipeline"] for entry in served}
    served += [{"pipeline": name, "refused": r} for name, r in servings.refusals().items() if name not in names]
    return [entry for entry in served if may_ask(entry["pipeline"])]


def describe(servings: Servings, log: PredictionLog, name: str) -> dict[str, Any]:
    """The pipeline's schema, its champion with metrics, and the state of this worker's log."""
    serving = servings.get(name)
    release, counts = serving.runtime.shown, log.counts()
    return {
        "pipeline": name,
        "task": release.task,
        "label": release.label,
        "champion": {
            "version": release.version,
            "generation": serving.pointer.generation,
            "promoted_at": serving.pointer.promoted_at,
            "reason": serving.pointer.reason,
            "trained_at": release.created_at,
            "learner": release.learner,
            "dataset": release.dataset,
            "metrics": release.metrics,
        },
        "entity": release.entity,
        "event_time": release.event_time,
        "columns": release.columns,
        "null_values": release.null_values,
        "features": [{"name": feature.name, "kind": feature.kind} for feature in release.features],
        "example": {"rows": release.example, "scores": release.example_scores},
        "challenger": _describe_challenger(servings, serving),
        "refused": servings.refusals().get(name),
        "log": {**msgspec.structs.asdict(counts), "keeper": _describe_keeper(counts.keeper)},
    }


def _describe_keeper(state: LogState) -> dict[str, int]:
    """Without the spools of workers, which are told to admins alone."""
    return {"published": state.published, "lost": state.lost, "waiting_bytes": state.waiting_bytes}


def count_shadows(servings: Servings) -> dict[str, Any]:
    """Rows that wait for shadows in this worker, and what became of others, for each pipeline."""
    shadows = servings.shadows
    if shadows is None:
        return {"waiting": 0, "pipelines": {}}
    return {"waiting": shadows.waiting, "pipelines": shadows.all_counts()}


def _describe_challenger(servings: Servings, serving: Serving) -> dict[str, Any] | None:
    """The release that is tried out, and why it does not serve if it does not."""
    wanted = serving.pointer.tried
    if wanted is None:
        return None
    refused = servings.refused_challenger(serving.pointer.pipeline)
    return {
        "version": wanted.version,
        "mode": "canary" if serving.pointer.shadow is None else "shadow",
        "share": wanted.share,
        "reason": wanted.reason,
        "serving": serving.challenger is not None,
        "refused": refused.reason if refused else None,
        **_describe_shadows(serving),
    }


def _describe_shadows(serving: Serving) -> dict[str, Any]:
    """What became of a shadow's rows in this worker; nothing of a canary."""
    if serving.pointer.shadow is None or serving.shadows is None:
        return {}
    return {"rows": serving.shadows.counts(serving.pointer.pipeline)}
