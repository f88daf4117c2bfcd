"""The ratios that the serving benchmark ends with."""

from typing import Any

from bench.figures import ALONE, best_peer, summarize

RATES = {
    ("esteira-granian", 1): 12_000.0,
    ("esteira-granian-sql", 1): 600.0,
    ("esteira-gunicorn", 1): 4_000.0,
    ("echo-granian", 1): 36_000.0,
    ("mlflow", 1): 100.0,
    ("mlserver-batching", 1): 500.0,
    ("bentoml-batching", 1): 400.0,
    ("esteira-granian", 100): 800.0,
    ("mlserver-batching", 100): 200.0,
    ("bentoml-batching", 100): 320.0,
    ("esteira-granian", 1000): 75.0,
    ("bentoml", 1000): 60.0,
    (ALONE, 1000): 200.0,
}


def summary(rates: dict[tuple[str, int], float], wide_ms: dict[int, float] | None = None) -> dict[str, Any]:
    return summarize(
        rates,
        wide_ms=wide_ms or {},
        p99_ms={"steady": 7.0712, "swapping": 7.4},
        start_s={"mlflow": 14.412},
        memory_mb_per_worker={"mlflow": 323.94},
        failures={"mlflow": 0},
        sigterm={"endings": 20, "dropped": 0},
    )


def test_each_batch_size_has_the_ratios_of_its_own_rates() -> None:
    found = summary(RATES)
    assert found["one_row"] == {
        "esteira_vs_mlflow": 120.0,
        "esteira_vs_best_peer": 24.0,
        "esteira_vs_echo": 0.333,
        "raw_sql_vs_features": 0.05,
    }
    assert found["hundred_rows"] == {"esteira_vs_best_peer": 2.5}
    assert found["thousand_rows"] == {"esteira_vs_best_peer": 1.25, "esteira_vs_onnx_alone": 0.375}


def test_the_best_peer_is_the_quickest_at_that_batch_size_and_never_a_side_of_our_own() -> None:
    assert [best_peer(RATES, rows) for rows in (1, 100, 1000)] == ["mlserver-batching", "bentoml-batching", "bentoml"]
    assert best_peer({("esteira-granian", 1): 1.0, ("echo-granian", 1): 2.0}, 1) is None


def test_what_600_columns_add_is_a_difference_to_10() -> None:
    assert summary(RATES, {10: 0.1686, 600: 0.2247})["wide"] == {"added_ms_600_columns": 0.056}


def test_what_was_not_measured_has_no_ratio() -> None:
    found = summary({("mlflow", 1): 100.0})
    assert set(found["one_row"].values()) == {None}
    assert found["wide"] == {"added_ms_600_columns": None}


def test_figures_are_rounded_to_what_a_round_can_tell() -> None:
    found = summary(RATES)
    assert found["p99_ms"] == {"steady": 7.07, "swapping": 7.4}
    assert found["start_s"] == {"mlflow": 14.41}
    assert found["memory_mb_per_worker"] == {"mlflow": 323.9}
    assert found["failures"] == {"mlflow": 0}
    assert found["sigterm"] == {"endings": 20, "dropped": 0}
