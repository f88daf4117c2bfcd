import math

from hypothesis import given
from hypothesis import strategies as st

from esteira.profile import MAX_CATEGORIES, Binning, describe_categorical, describe_numeric

NUMBERS = st.lists(st.none() | st.floats(allow_infinity=True, allow_nan=True) | st.integers(-1000, 1000))
TEXTS = st.lists(st.none() | st.text(max_size=2))


@given(NUMBERS, NUMBERS)
def test_every_number_falls_into_one_bin(reference: list[float | None], live: list[float | None]) -> None:
    binning = describe_numeric("x", reference)
    assert sum(binning.counts) == len(reference)
    assert sum(binning.count(live)) == len(live)
    assert len(binning.counts) == binning.bins == len(binning.count(live))


@given(TEXTS, TEXTS)
def test_every_text_falls_into_one_bin(reference: list[str | None], live: list[str | None]) -> None:
    binning = describe_categorical("x", reference)
    assert sum(binning.counts) == len(reference)
    assert sum(binning.count(live)) == len(live)
    assert len(binning.counts) == binning.bins == len(binning.count(live))


def test_an_edge_belongs_to_the_bin_above_it() -> None:
    binning = Binning(name="x", kind="numeric", edges=[0.0, 1.0], counts=[])
    values = [-math.inf, -1, 0, 0.5, 1, math.inf, None, math.nan]
    assert binning.indices(values).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [binning.label(i) for i in range(4)] == ["[-∞, 0)", "[0, 1)", "[1, ∞)", "missing"]


def test_rare_and_missing_categories_have_bins_of_their_own() -> None:
    binning = describe_categorical("x", [str(i) for i in range(MAX_CATEGORIES)] * 2 + ["rare", None])
    assert binning.counts[-2:] == [1, 1]
    assert binning.indices(["never seen", None]).tolist() == [MAX_CATEGORIES, MAX_CATEGORIES + 1]
    assert (binning.label(MAX_CATEGORIES), binning.label(MAX_CATEGORIES + 1)) == ("other", "missing")
