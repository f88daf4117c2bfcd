"""Where the marks of the dashboard's charts stand: plain geometry, drawn as SVG by the template."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
import numpy as np

from monitor.reports import WindowReport

WIDTH, HEIGHT = 640.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 24.0, 28.0
MAX_LABELS = 9
SPACING = 90.0
"""Windows stand no further apart than this, so that two of them are not the whole width."""
FORMATS = {"month": "%b %Y", "week": "%d %b", "day": "%d %b", "hour": "%d %b %H:%M"}


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A point or a bar."""

    x: float
    y: float
    title: str
    kind: str = ""
    """How it is coloured: a verdict."""
    height: float = 0.0


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A tick, a rule or a threshold, with its label."""

    at: float
    label: str
    kind: str = ""


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """One chart, in the units of a viewBox of `WIDTH` by `HEIGHT`."""

    title: str
    line: str = ""
    band: str = ""
    reference: str = ""
    points: list[Mark] = []
    bars: list[Mark] = []
    across: list[Line]
    """Horizontal lines, by y."""
    along: list[Line]
    """Labels of windows, by x."""
    rules: list[Line] = []
    """Vertical lines: where another model version took over."""
    bar_width: float = 0.0


class Scale(msgspec.Struct, frozen=True):
    """From values to y."""

    low: float
    high: float

    def y(self, value: float) -> float:
        """Greater values stand higher."""
        share = (value - self.low) / (self.high - self.low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def performance_chart(windows: Sequence[WindowReport], metric: str, title: str, span: str) -> Chart | None:
    """The main metric by window, with its interval and what each model was released with; None without figures."""
    shown = [window for window in windows if f"{metric}_low" in window.main.figures]
    if not shown:
        return None
    xs = _positions(len(shown))
    figures = [window.main.figures for window in shown]
    scale = _scale([row[f"{metric}_{side}"] for row in figures for side in ("low", "high")])
    upper = [(x, scale.y(row[f"{metric}_high"])) for x, row in zip(xs, figures, strict=True)]
    lower = [(x, scale.y(row[f"{metric}_low"])) for x, row in zip(xs, figures, strict=True)]
    middle = [(x, scale.y(row[metric])) for x, row in zip(xs, figures, strict=True)]
    return Chart(
        title=title,
        line=_path(middle),
        band=_path(upper + lower[::-1], closed=True),
        reference=_steps(xs, [_reference(row, metric, scale) for row in figures]),
        points=[_point(x, y, window, metric, span) for (x, y), window in zip(middle, shown, strict=True)],
        across=_ticks(scale),
        along=_labels(xs, [window.start for window in shown], span),
        rules=_takeovers(xs, shown),
    )


def drift_chart(windows: Sequence[WindowReport], warning: float, alarm: float, span: str) -> Chart | None:
    """The greatest PSI of a feature by window; None without figures."""
    shown = [window for window in windows if "max_psi" in window.main.figures]
    if not shown:
        return None
    xs = _positions(len(shown))
    values = [window.main.figures["max_psi"] for window in shown]
    scale = Scale(0.0, max(*values, alarm) * 1.1 or 1.0)
    thresholds = [
        Line(at=scale.y(warning), label=f"warning {warning:g}", kind="warning"),
        Line(at=scale.y(alarm), label=f"alarm {alarm:g}", kind="alarm"),
    ]
    return Chart(
        title="Greatest drift of a feature (PSI)",
        bars=[_bar(x, value, window, scale, span) for x, value, window in zip(xs, values, shown, strict=True)],
        across=[*_ticks(scale), *thresholds],
        along=_labels(xs, [window.start for window in shown], span),
        rules=_takeovers(xs, shown),
        bar_width=round(min(26.0, (xs[1] - xs[0]) * 0.6 if len(xs) > 1 else 26.0), 1),
    )


def window_label(start: datetime, span: str) -> str:
    """What people call the window that begins at `start`."""
    return start.strftime(FORMATS[span]).lstrip("0")


def _positions(count: int) -> list[float]:
    step = min(SPACING, (WIDTH - LEFT - RIGHT) / count)
    return [round(LEFT + step * (index + 0.5), 1) for index in range(count)]


def _scale(values: Sequence[float]) -> Scale:
    low, high = min(values), max(values)
    margin = max((high - low) * 0.12, 0.005)
    return Scale(low - margin, high + margin)


def _ticks(scale: Scale) -> list[Line]:
    rough = (scale.high - scale.low) / 4
    magnitude = 10.0 ** np.floor(np.log10(rough))
    step = float(min((1, 2, 5, 10), key=lambda factor: abs(factor * magnitude - rough)) * magnitude)
    values = np.arange(np.ceil(scale.low / step), np.floor(scale.high / step) + 1) * step
    return [Line(at=scale.y(float(value)), label=f"{value:.3g}") for value in values]


def _labels(xs: Sequence[float], starts: Sequence[datetime], span: str) -> list[Line]:
    every = -(-len(xs) // MAX_LABELS)
    return [
        Line(at=x, label=window_label(start, span))
        for index, (x, start) in enumerate(zip(xs, starts, strict=True))
        if (len(xs) - 1 - index) % every == 0
    ]


def _takeovers(xs: Sequence[float], windows: Sequence[WindowReport]) -> list[Line]:
    found = []
    for index in range(1, len(windows)):
        version = windows[index].main.model_version
        if version != windows[index - 1].main.model_version:
            found.append(Line(at=round((xs[index - 1] + xs[index]) / 2, 1), label=version))
    return found


def _reference(figures: dict[str, float], metric: str, scale: Scale) -> float | None:
    released = figures.get(f"{metric}_released")
    return scale.y(released) if released is not None and scale.low <= released <= scale.high else None


def _point(x: float, y: float, window: WindowReport, metric: str, span: str) -> Mark:
    figures = window.main.figures
    interval = f"{figures[f'{metric}_low']:.3f} to {figures[f'{metric}_high']:.3f}"
    title = f"{window_label(window.start, span)}: {figures[metric]:.3f} ({interval}), {window.main.model_version}"
    return Mark(x=x, y=y, title=title, kind=window.main.verdicts.get(metric, "ok"))


def _bar(x: float, value: float, window: WindowReport, scale: Scale, span: str) -> Mark:
    y = scale.y(value)
    title = f"{window_label(window.start, span)}: {window.main.max_psi_feature} {value:.3f}"
    kind = window.main.verdicts.get("max_psi", "ok")
    return Mark(x=x, y=y, title=title, kind=kind, height=round(HEIGHT - BOTTOM - y, 1))


def _path(points: Sequence[tuple[float, float]], closed: bool = False) -> str:
    return "M" + " L".join(f"{x} {y}" for x, y in points) + ("Z" if closed else "")


def _steps(xs: Sequence[float], ys: Sequence[float | None]) -> str:
    half = (xs[1] - xs[0]) / 2 if len(xs) > 1 else SPACING / 2
    parts = [f"M{x - half:.1f} {y} H{x + half:.1f}" for x, y in zip(xs, ys, strict=True) if y is not None]
    return " ".join(parts)
