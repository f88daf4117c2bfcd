import numpy as np
import pytest

from esteira.pipeline import Gates
from esteira.schema import Feature
from trainer import gates
from trainer.compare import Difference, SliceDifference
from trainer.fit import Matrices


def difference(low: float, high: float) -> Difference:
    return Difference(value=(low + high) / 2, low=low, high=high, rows=1000)


@pytest.mark.parametrize(("low", "passed"), [(-0.009, True), (-0.011, False), (0.02, True)])
def test_challenger_may_lose_no_more_than_the_margin_at_the_lower_bound(low: float, passed: bool) -> None:
    gate = gates.champion_gate("7", difference(low, low + 0.01), Gates(max_loss_to_champion=0.01))
    assert (gate.passed, gate.value) == (passed, low)


def test_uncertain_slice_passes_and_surely_worse_one_fails() -> None:
    slices = [
        SliceDifference(feature="origin", value=name, difference=found)
        for name, found in {"EWR": difference(-0.2, 0.1), "JFK": difference(-0.09, -0.06)}.items()
    ]
    (gate,) = gates.slices_gates(slices, ["origin"], Gates())
    assert not gate.passed
    assert "JFK" in gate.detail
    (gate,) = gates.slices_gates(slices[:1], ["origin"], Gates())
    assert gate.passed


def matrices(codes: np.ndarray, label: np.ndarray) -> Matrices:
    features = [Feature("noise", "numeric"), Feature("code", "categorical", ["a", "b"])]
    noise = np.random.default_rng(0).random(len(label))
    rows = np.column_stack([noise, codes])
    half = len(label) // 2
    return Matrices(features, rows[:half], label[:half], rows[half:], label[half:])


def test_category_that_is_the_label_is_a_leak() -> None:
    label = np.tile([0.0, 1.0], 200)
    gate = gates.leakage_gate("classification", matrices(1 - label, label))
    assert (gate.passed, gate.detail, gate.value) == (False, "code", 1.0)


def test_constant_category_is_no_leak() -> None:
    label = np.tile([0.0, 1.0, 1.0], 200)
    assert gates.leakage_gate("classification", matrices(np.zeros(600), label)).passed


def test_missing_value_can_tell_the_label() -> None:
    label = np.tile([0.0, 1.0], 100)
    values = np.where(label == 1, np.nan, np.random.default_rng(0).random(200))
    assert gates.tells("classification", values, label) == 1.0


def test_verdict_names_what_failed_with_its_figures() -> None:
    judged = [gates.rows_gate(10, 200), gates.calibration_gate({"ece": 0.01}, Gates())]
    assert gates.verdict(judged) == "rows: 10 against 200 labelled rows"
    assert gates.verdict(judged[1:]) == "passed every gate"
