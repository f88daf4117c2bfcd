"""One picture for each pipeline: recorded against new scores, and the challenger against the champion by slice."""

from pathlib import Path
from typing import Any

from esteira_cli.validate.report import differences
from esteira_cli.validate.results import PipelineResult

_MOST_SLICES = 30


def write_plot(result: PipelineResult, folder: Path) -> str | None:
    """Draws what there is to draw; gives the file's name, or None."""
    reports = {finding.check: finding.report for finding in reversed(result.findings) if finding.report}
    scores = [(was, now) for was, now in reports.get("replay", {}).get("scores", []) if now is not None]
    intervals = differences(reports["retrial"]) if "retrial" in reports else []
    if not scores and not intervals:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_scores(left, scores)
    _draw_intervals(right, intervals[:_MOST_SLICES])
    figure.suptitle(f"{result.pipeline}: this code against release {result.version}")
    name = f"{result.pipeline}.png"
    figure.savefig(folder / name, dpi=110)
    return name


def _draw_scores(axes: Any, scores: list[tuple[float, float]]) -> None:
    axes.set(title="Recorded requests", xlabel="score in production", ylabel="score of this code")
    if not scores:
        axes.text(0.5, 0.5, "no request was answered", ha="center", transform=axes.transAxes)
        return
    was, now = zip(*scores, strict=True)
    low, high = min(*was, *now), max(*was, *now)
    axes.plot([low, high], [low, high], color="0.7", linewidth=1)
    axes.scatter(was, now, s=9, alpha=0.6)


def _draw_intervals(axes: Any, intervals: list[tuple[str, float, float, float, int]]) -> None:
    axes.set(title="A model trained by this code", xlabel="challenger minus champion")
    if not intervals:
        axes.text(0.5, 0.5, "nothing was trained", ha="center", transform=axes.transAxes)
        return
    axes.axvline(0, color="0.7", linewidth=1)
    for position, (_, value, low, high, _) in enumerate(reversed(intervals)):
        axes.plot([low, high], [position, position], color="C0")
        axes.plot(value, position, "o", color="C0", markersize=4)
    axes.set_yticks(range(len(intervals)), [name for name, *_ in reversed(intervals)])
