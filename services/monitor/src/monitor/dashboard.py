"""The dashboard: one page, rendered here, that asks for nothing from elsewhere."""

from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from monitor import charts
from monitor.decision import TITLES
from monitor.measures import MAIN_METRIC, RELEASED_METRIC
from monitor.views import PipelineOverview
from monitor.windows import as_utc

TABLE_ROWS = 12
DRIFT_ROWS = 12
KINDS = {
    "requested": "alarm",
    "not-yet": "warning",
    "not-needed": "ok",
    "insufficient": "muted",
    "promoted": "ok",
    "done": "ok",
    "approved": "ok",
    "rejected": "warning",
    "failed": "alarm",
    "running": "busy",
    "requested-run": "busy",
    "pending": "busy",
}


def render(pipelines: list[PipelineOverview]) -> str:
    """The page as HTML; everything that comes from outside is escaped by the template."""
    return _environment().get_template("dashboard.html").render(sections=[_section(found) for found in pipelines])


def _section(overview: PipelineOverview) -> dict[str, Any]:
    metric = MAIN_METRIC[overview.task]
    windows, span = overview.windows, overview.span
    widest = max([overview.psi_alarm * 1.2, *(drift.psi or 0.0 for drift in overview.drift)])
    return {
        "p": overview,
        "metric": metric,
        "metric_title": TITLES[metric],
        "released": RELEASED_METRIC[metric],
        "champion": next((found for found in overview.promotions[::-1] if found["share"] == 1), None),
        "challenger": next((found for found in overview.promotions[-1:] if found["share"] < 1), None),
        "newest": windows[-1] if windows else None,
        "table": windows[::-1][:TABLE_ROWS],
        "drift": overview.drift[:DRIFT_ROWS],
        "widest": widest,
        "charts": [
            charts.performance_chart(windows, metric, f"{TITLES[metric]} by {span}, with its interval", span),
            charts.drift_chart(windows, overview.psi_warning, overview.psi_alarm, span),
        ],
    }


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("monitor"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"moment": _moment, "whole": _whole, "figure": _figure, "label": charts.window_label}
    environment.globals |= {"kinds": KINDS, "width": charts.WIDTH, "height": charts.HEIGHT}
    environment.globals |= {"left": charts.LEFT, "right": charts.WIDTH - charts.RIGHT, "top": charts.TOP}
    environment.globals |= {"floor": charts.HEIGHT - charts.BOTTOM}
    return environment


def _moment(moment: datetime | None) -> str:
    return as_utc(moment).strftime("%d %b %Y, %H:%M:%S").lstrip("0") if moment else "–"


def _whole(number: float | None) -> str:
    return f"{number:,.0f}" if number is not None else "–"


def _figure(number: float | None, digits: int = 3) -> str:
    return f"{number:.{digits}f}" if number is not None else "–"
