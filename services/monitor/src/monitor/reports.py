"""What people look at, read from Postgres."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from esteira.tables import checks, datasets, ingestions, outcomes, promotions, releases, training_runs
from monitor.repository import RETRAINING, WINDOW
from monitor.windows import as_utc

_NEVER = datetime.min.replace(tzinfo=UTC)
BOUNDED = ("auc", "r2", "calibration", "score_bias", "bias")


class VersionFigures(msgspec.Struct, kw_only=True):
    """What one model version showed in a window; figures that could not be measured are missing."""

    model_version: str
    figures: dict[str, float]
    """By name; where there is an interval, `<name>_low` and `<name>_high` too."""
    verdicts: dict[str, str]
    max_psi_feature: str | None = None
    decision: str | None = None
    reason: str | None = None
    judged_at: datetime | None = None
    decided_at: datetime | None = None
    """When it was judged as champion, if ever."""


class WindowReport(msgspec.Struct, frozen=True, kw_only=True):
    """A window with the version that it is about, and all that served in it."""

    start: datetime
    end: datetime
    versions: list[VersionFigures]

    @property
    def main(self) -> VersionFigures:
        """The version that served most of the window; of equals, the one judged last as champion."""
        return max(self.versions, key=_prominence)

    def as_json(self) -> dict[str, Any]:
        """As `GET /pipelines/<p>/windows` answers."""
        main = self.main
        return {
            "window_start": self.start,
            "window_end": self.end,
            **_version_json(main),
            "versions": [_version_json(version) for version in self.versions],
        }


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """How far one feature moved in a window."""

    feature: str
    psi: float | None
    verdict: str
    threshold: float | None
    most_moved: dict[str, Any] | None
    withheld: str | None = None
    """The rule by which it is not logged, and so not measured: `hashed` or `never`."""
    logged_share: float | None = None
    """Of predictions, where the feature is logged for a share of them."""


def _prominence(version: VersionFigures) -> tuple[float, datetime]:
    return version.figures.get("requests", 0.0), version.decided_at or _NEVER


def _version_json(version: VersionFigures) -> dict[str, Any]:
    found: dict[str, Any] = dict(version.figures)
    found |= {name: int(found[name]) for name in ("requests", "labelled") if name in found}
    return {
        "model_version": version.model_version,
        **found,
        "max_psi_feature": version.max_psi_feature,
        "verdicts": version.verdicts,
        "decision": version.decision,
        "reason": version.reason,
        "judged_at": version.judged_at,
    }


def read_windows(session: Session, pipeline: str, start: datetime | None, most: int) -> list[WindowReport]:
    """The newest `most` judged windows, the newest last; from `start` on if given."""
    c = checks.c
    judged = select(c.window_start).where(c.pipeline == pipeline, c.name == "requests", c.subject == "")
    if start is not None:
        judged = judged.where(c.window_start >= start)
    starts = judged.distinct().order_by(c.window_start.desc()).limit(most)
    found = select(checks).where(c.pipeline == pipeline, c.window_start.in_(starts), c.subject == "", c.name != WINDOW)
    rows = session.execute(found.order_by(c.window_start, c.model_version)).all()
    by_window: dict[datetime, list[Row[Any]]] = {}
    for row in rows:
        by_window.setdefault(row.window_start, []).append(row)
    return [_window(group) for group in by_window.values()]


def _window(rows: Sequence[Row[Any]]) -> WindowReport:
    versions: dict[str, VersionFigures] = {}
    for row in rows:
        version = versions.setdefault(
            row.model_version, VersionFigures(model_version=row.model_version, figures={}, verdicts={})
        )
        _add(version, row)
    return WindowReport(
        start=as_utc(rows[0].window_start), end=as_utc(rows[0].window_end), versions=list(versions.values())
    )


def _add(version: VersionFigures, row: Row[Any]) -> None:
    version.verdicts[row.name] = row.verdict
    version.judged_at = max(filter(None, (version.judged_at, as_utc(row.measured_at))))
    if row.name == RETRAINING:
        version.decided_at = as_utc(row.measured_at)
        version.decision, version.reason = row.details.get("decision"), row.details.get("reason")
    if row.name == "max_psi":
        version.max_psi_feature = row.details.get("feature")
    if row.value is not None:
        version.figures[row.name] = row.value
    if row.name in BOUNDED and row.value is not None:
        version.figures |= {f"{row.name}_{side}": row.details[side] for side in ("low", "high")}
    if row.name in ("auc", "r2") and "released" in row.details:
        version.figures[f"{row.name}_released"] = row.details["released"]


def read_drift(session: Session, pipeline: str, report: WindowReport | None) -> list[Drift]:
    """Each feature's drift in the window, the greatest first."""
    if report is None:
        return []
    c = checks.c
    rows = session.execute(
        select(checks).where(
            c.pipeline == pipeline,
            c.window_start == report.start,
            c.model_version == report.main.model_version,
            c.name == "psi",
        )
    )
    found = [
        Drift(
            feature=row.subject,
            psi=row.value,
            verdict=row.verdict,
            threshold=row.threshold,
            most_moved=row.details.get("most_moved"),
            withheld=row.details.get("withheld"),
            logged_share=row.details.get("logged_share"),
        )
        for row in rows
    ]
    return sorted(found, key=lambda drift: -(drift.psi or 0.0))


def read_counts(session: Session, pipeline: str) -> dict[str, int]:
    """How many predictions and outcomes are stored. Windows count their predictions as they come: no scan."""
    c = checks.c
    stored = select(func.coalesce(func.sum(c.value), 0)).where(c.pipeline == pipeline, c.name == WINDOW)
    waiting = select(func.count()).where(c.pipeline == pipeline, c.name == WINDOW, c.verdict == "insufficient")
    observed = select(func.count()).select_from(outcomes).where(outcomes.c.pipeline == pipeline)
    return {
        "predictions": int(session.execute(stored).scalar_one()),
        "outcomes": int(session.execute(observed).scalar_one()),
        "windows_waiting": int(session.execute(waiting).scalar_one()),
    }


def read_promotions(session: Session, pipeline: str, most: int = 50) -> list[dict[str, Any]]:
    """The newest promotions, canaries and shadows, the newest last."""
    p, r = promotions.c, releases.c
    query = (
        select(p.generation, p.release_version, p.previous_version, p.share, p.shadow, p.reason, p.by, p.created_at)
        .add_columns(r.metrics)
        .join(releases, (r.pipeline == p.pipeline) & (r.version == p.release_version))
        .where(p.pipeline == pipeline)
    )
    return _dicts(session.execute(query.order_by(p.generation.desc()).limit(most)))[::-1]


def read_ingestions(session: Session, pipeline: str, most: int = 12) -> list[dict[str, Any]]:
    """The newest ingestions, the newest first."""
    c = ingestions.c
    names = (
        "object",
        "status",
        "rows",
        "accepted",
        "quarantined",
        "reasons",
        "reason",
        "dataset_version",
        "created_at",
    )
    query = select(*(c[name] for name in names)).where(c.pipeline == pipeline)
    return _dicts(session.execute(query.order_by(c.created_at.desc()).limit(most)))


def read_runs(session: Session, pipeline: str, most: int = 12) -> list[dict[str, Any]]:
    """The newest training runs, the newest first."""
    c = training_runs.c
    names = ("number", "status", "verdict", "reason", "requested_by", "dataset_number", "release_version", "metrics")
    columns = [*(c[name] for name in names), c.created_at, c.finished_at]
    return _dicts(session.execute(select(*columns).where(c.pipeline == pipeline).order_by(c.number.desc()).limit(most)))


def read_dataset(session: Session, pipeline: str) -> dict[str, Any] | None:
    """The newest dataset version."""
    c = datasets.c
    query = select(c.number, c.version, c.rows, c.labelled).where(c.pipeline == pipeline)
    found = _dicts(session.execute(query.order_by(c.number.desc()).limit(1)))
    return found[0] if found else None


def _dicts(rows: Iterable[Row[Any]]) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in rows]
