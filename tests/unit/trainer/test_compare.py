import numpy as np
import pytest

from trainer.compare import compare, compare_slices
from trainer.evaluate import Task, main_metric


def models(task: Task, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    signal = random.normal(size=count)
    label = signal + random.normal(size=count)
    if task == "classification":
        label = (label > 0).astype(float)
    return label, signal + 0.5 * random.normal(size=count), signal + random.normal(size=count)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_interval_is_that_of_a_paired_bootstrap(task: Task) -> None:
    label, ours, theirs = models(task, 2000)
    found = compare(task, label, ours, theirs, 0.95)
    random = np.random.default_rng(2)
    draws = (random.integers(0, len(label), len(label)) for _ in range(600))
    values = [main_metric(task, label[d], ours[d]) - main_metric(task, label[d], theirs[d]) for d in draws]
    low, high = np.quantile(values, [0.025, 0.975])
    assert found.value == pytest.approx(main_metric(task, label, ours) - main_metric(task, label, theirs))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.15 * (high - low))


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_equal_models_do_not_differ(task: Task) -> None:
    label, ours, _ = models(task, 500)
    found = compare(task, label, ours, ours, 0.95)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_exchanging_the_models_turns_the_sign() -> None:
    label, ours, theirs = models("classification", 500)
    there, back = (compare("classification", label, *pair, 0.9) for pair in ((ours, theirs), (theirs, ours)))
    assert (there.value, there.low) == pytest.approx((-back.value, -back.high))


def test_small_slices_and_slices_of_one_label_are_left_out() -> None:
    label, ours, theirs = models("classification", 1000)
    value = np.array(["big"] * 500 + ["small"] * 100 + ["same"] * 400)
    label[600:] = 1.0
    found = compare_slices("classification", "kind", value, label, ours, theirs, 0.95)
    assert [(part.value, part.difference.rows) for part in found] == [("big", 500)]
