"""What people ask for, put together from the reports."""

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from esteira.pipeline import LoadedPipeline, find_pipeline
from esteira.promotions import PromotedRelease, find_standing
from monitor import reports
from monitor.reports import Drift, WindowReport

Pipelines = dict[str, LoadedPipeline]

DASHBOARD_WINDOWS = 60


class PipelineOverview(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the dashboard shows of one pipeline."""

    name: str
    task: str
    psi_warning: float
    psi_alarm: float
    span: str
    counts: dict[str, int]
    dataset: dict[str, Any] | None
    windows: list[WindowReport]
    drift: list[Drift]
    ingestions: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    promotions: list[dict[str, Any]]


def status(engine: Engine, pipelines: Pipelines, name: str) -> dict[str, Any]:
    """Champion, stored rows, drift now and the last decision.

    Raises:
        UnknownPipeline: there is no such pipeline.
    """
    find_pipeline(pipelines, name)
    with Session(engine) as session:
        newest = reports.read_windows(session, name, None, 1)
        standing = find_standing(session, name)
        counts, dataset = reports.read_counts(session, name), reports.read_dataset(session, name)
    window = newest[0].as_json() if newest else None
    champion, challenger = _release(standing.champion), _release(standing.challenger)
    head = {"pipeline": name, "champion": champion, "challenger": challenger}
    return {**head, **counts, "dataset": dataset, "window": window}


def _release(promoted: PromotedRelease | None) -> dict[str, Any] | None:
    if promoted is None:
        return None
    names = ("version", "generation", "promoted_at", "reason", "metrics", "share", "shadow")
    return {name: getattr(promoted, name) for name in names}


def windows(engine: Engine, pipelines: Pipelines, name: str, start: datetime | None, most: int) -> list[dict[str, Any]]:
    """The judged windows, the newest last.

    Raises:
        UnknownPipeline: there is no such pipeline.
    """
    find_pipeline(pipelines, name)
    with Session(engine) as session:
        return [window.as_json() for window in reports.read_windows(session, name, start, most)]


def drift(engine: Engine, pipelines: Pipelines, name: str) -> dict[str, Any]:
    """Each feature's drift in the newest window.

    Raises:
        UnknownPipeline: there is no such pipeline.
    """
    find_pipeline(pipelines, name)
    with Session(engine) as session:
        newest = reports.read_windows(session, name, None, 1)
        found = reports.read_drift(session, name, newest[0] if newest else None)
    if not newest:
        return {"pipeline": name, "window_start": None, "window_end": None, "model_version": None, "features": []}
    window = newest[0]
    head = {"pipeline": name, "window_start": window.start, "window_end": window.end}
    return {**head, "model_version": window.main.model_version, "features": found}


def overview(engine: Engine, pipelines: Pipelines) -> list[PipelineOverview]:
    """All pipelines, as the dashboard shows them."""
    with Session(engine) as session:
        return [_overview(session, pipeline) for _, pipeline in sorted(pipelines.items())]


def _overview(session: Session, pipeline: LoadedPipeline) -> PipelineOverview:
    monitoring, name = pipeline.spec.monitoring, pipeline.name
    judged = reports.read_windows(session, name, None, DASHBOARD_WINDOWS)
    return PipelineOverview(
        name=name,
        task=pipeline.spec.task,
        psi_warning=monitoring.psi_warning,
        psi_alarm=monitoring.psi_alarm,
        span=monitoring.window,
        counts=reports.read_counts(session, name),
        dataset=reports.read_dataset(session, name),
        windows=judged,
        drift=reports.read_drift(session, name, judged[-1] if judged else None),
        ingestions=reports.read_ingestions(session, name),
        runs=reports.read_runs(session, name),
        promotions=reports.read_promotions(session, name),
    )
