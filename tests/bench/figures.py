"""The ratios of a run, from its medians alone."""

from collections.abc import Mapping
from typing import Any

SERVER = "granian"
"""The predictor's server in the ratios, and the echo's."""
ESTEIRA = f"esteira-{SERVER}"
ECHO = f"echo-{SERVER}"
PEERS = ("mlflow", "mlserver", "mlserver-batching", "bentoml", "bentoml-batching")
ALONE = "onnx alone in-process"
Rates = Mapping[tuple[str, int], float]
"""(side, rows a request) → requests a second."""


def summarize(
    rates: Rates,
    *,
    wide_ms: Mapping[int, float],
    p99_ms: Mapping[str, float],
    start_s: Mapping[str, float],
    memory_mb_per_worker: Mapping[str, float],
    failures: Mapping[str, int],
    sigterm: Mapping[str, Any],
) -> dict[str, Any]:
    """What the last line says. A ratio is None where a side of it was not measured.

    Args:
        wide_ms: columns → median milliseconds of one row at one connection.
        p99_ms: with one release, and while two take turns.
        sigterm: what `ending.summarize_endings` says.
    """

    def against(rows: int, other: str | None, side: str = ESTEIRA) -> float | None:
        return _divide(rates.get((side, rows)), rates.get((other, rows)) if other else None)

    def against_best(rows: int) -> float | None:
        return against(rows, best_peer(rates, rows))

    one = {
        "esteira_vs_mlflow": against(1, "mlflow"),
        "esteira_vs_best_peer": against_best(1),
        "esteira_vs_echo": against(1, ECHO),
        "raw_sql_vs_features": against(1, ESTEIRA, f"{ESTEIRA}-sql"),
    }
    added = wide_ms[600] - wide_ms[10] if {10, 600} <= set(wide_ms) else None
    return {
        "one_row": one,
        "hundred_rows": {"esteira_vs_best_peer": against_best(100)},
        "thousand_rows": {"esteira_vs_best_peer": against_best(1000), "esteira_vs_onnx_alone": against(1000, ALONE)},
        "wide": {"added_ms_600_columns": None if added is None else round(added, 3)},
        "p99_ms": _rounded(p99_ms, 2),
        "start_s": _rounded(start_s, 2),
        "memory_mb_per_worker": _rounded(memory_mb_per_worker, 1),
        "failures": dict(failures),
        "sigterm": dict(sigterm),
    }


def best_peer(rates: Rates, rows: int) -> str | None:
    """The quickest peer at this batch size."""
    found = {peer: rates[peer, rows] for peer in PEERS if (peer, rows) in rates}
    return max(found, key=found.__getitem__, default=None)


def _divide(rate: float | None, other: float | None) -> float | None:
    return round(rate / other, 3) if rate is not None and other else None


def _rounded(figures: Mapping[str, float], digits: int) -> dict[str, float]:
    return {name: round(figure, digits) for name, figure in figures.items()}
