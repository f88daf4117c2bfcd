import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.split import held_out, held_out_days


def test_choice_never_changes() -> None:
    keys = [f"2013|1|{n}|UA|{n}|EWR" for n in range(20)]
    chosen = "".join(str(int(held)) for held in held_out(keys, 0.2))
    assert chosen == "00001100000000001000"


@given(st.lists(st.text()), st.floats(0.01, 0.98))
def test_greater_share_holds_out_the_same_keys_and_more(keys: list[str], share: float) -> None:
    few, many = held_out(keys, share), held_out(keys, share + 0.01)
    assert (many | ~few).all()


def test_share_is_kept() -> None:
    assert held_out(map(str, range(20_000)), 0.2).mean() == pytest.approx(0.2, abs=0.01)


def test_days_are_held_out_whole() -> None:
    hours = np.datetime64("2013-01-01T00", "h") + np.arange(24 * 100)
    chosen = held_out_days(hours.astype("datetime64[us]"), 0.3).reshape(100, 24)
    assert (chosen == chosen[:, :1]).all()
    assert 10 < chosen[:, 0].sum() < 50
