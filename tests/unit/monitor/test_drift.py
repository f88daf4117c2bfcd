import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.drift import MIN_SHARE, InsufficientSample, population_stability_index

counts = st.lists(st.integers(0, 1000), min_size=2, max_size=12).filter(lambda found: sum(found) >= len(found))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    first = draw(counts)
    same_size = st.lists(st.integers(0, 1000), min_size=len(first), max_size=len(first))
    return first, draw(same_size.filter(lambda found: sum(found) >= len(found)))


@given(counts, st.integers(1, 50))
def test_the_same_shares_do_not_drift(reference: list[int], factor: int) -> None:
    assert population_stability_index(reference, np.array(reference) * factor) == pytest.approx(0, abs=1e-12)


@given(pairs())
def test_drift_is_symmetric_and_never_negative(pair: tuple[list[int], list[int]]) -> None:
    first, second = pair
    drift = population_stability_index(first, second)
    assert drift >= 0
    assert drift == pytest.approx(population_stability_index(second, first))


def test_drift_is_the_textbook_sum() -> None:
    expected = (0.5 - 0.25) * np.log(0.5 / 0.25) + (0.5 - 0.75) * np.log(0.5 / 0.75)
    assert population_stability_index([25, 75], [50, 50]) == pytest.approx(expected)


def test_a_vanished_bin_raises_the_score() -> None:
    drift = population_stability_index([100, 900], [0, 1000])
    assert drift == pytest.approx((0.1 - MIN_SHARE) * np.log(0.1 / MIN_SHARE), rel=0.02)


@pytest.mark.parametrize("pair", [([0, 0], [5, 5]), ([5, 5], [1, 0])])
def test_too_few_rows_are_told(pair: tuple[list[int], list[int]]) -> None:
    with pytest.raises(InsufficientSample, match="at least one for each"):
        population_stability_index(*pair)


def test_different_bins_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="same bins"):
        population_stability_index([5, 5], [5, 5, 5])
