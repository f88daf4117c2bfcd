"""What is left of a demo: a line a month, a JSON file, and a picture."""

from pathlib import Path

import msgspec
from rich.table import Table


class Month(msgspec.Struct, kw_only=True):
    """How a month went."""

    month: int
    requests: int
    model_version: str
    auc_live: float | None
    auc_frozen: float | None
    max_psi: float | None
    retrained: bool
    reason: str


class DemoReport(msgspec.Struct, kw_only=True):
    """The content of demo-report.json."""

    months: list[Month]
    retrainings: int
    first_prediction_s: float
    total_s: float


def write_report(report: DemoReport, path: Path) -> None:
    """Writes the report as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def month_line(month: Month) -> str:
    """One month as one line."""
    psi = "-" if month.max_psi is None else f"{month.max_psi:.2f}"
    mark = "retrained" if month.retrained else "not retrained"
    return (
        f"month {month.month:2}  {month.requests:5} requests  model {month.model_version:>4}  "
        f"AUC live {_figure(month.auc_live)}  frozen {_figure(month.auc_frozen)}  drift {psi:>5}  "
        f"{mark}: {month.reason}"
    )


def summary(report: DemoReport) -> Table:
    """The means over all months."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("mean AUC, live", _figure(mean([month.auc_live for month in report.months])))
    table.add_row("mean AUC, first champion frozen", _figure(mean([month.auc_frozen for month in report.months])))
    table.add_row("retrainings", str(report.retrainings))
    table.add_row("first prediction after", f"{report.first_prediction_s:.0f} s")
    table.add_row("all of it", f"{report.total_s:.0f} s")
    return table


def mean(values: list[float | None]) -> float | None:
    """The mean of what is there."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def draw(report: DemoReport, path: Path, title: str) -> None:
    """Draws live against frozen AUC by month, with retrainings marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    months = [month.month for month in report.months]
    axes.plot(
        months, _line([m.auc_frozen for m in report.months]), "o--", color="#9aa0a6", label="first champion, frozen"
    )
    axes.plot(months, _line([m.auc_live for m in report.months]), "o-", color="#1a73e8", label="live champion")
    for month in report.months:
        if month.retrained:
            axes.axvline(month.month + 0.5, color="#34a853", linewidth=1, alpha=0.6)
    axes.plot([], [], color="#34a853", linewidth=1, label="retrained")
    axes.set(title=title, xlabel="month", ylabel="AUC on the month's requests", xticks=months)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def _line(values: list[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _figure(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"
