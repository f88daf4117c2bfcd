"""Faults: what can be asked for, and what is drawn."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esteira_cli.pubsub.exceptions import InvalidArgument
from esteira_cli.pubsub.faults import Faults, parse_delay, parse_faults


@given(
    duplicate=st.floats(0, 1),
    bounds=st.tuples(st.floats(0, 3600), st.floats(0, 3600)).map(sorted),
    reorder=st.booleans(),
)
def test_faults_read_back_what_they_write(duplicate: float, bounds: list[float], reorder: bool) -> None:
    faults = Faults(duplicate, (bounds[0], bounds[1]), reorder)
    assert parse_faults(faults.to_json()) == faults


@pytest.mark.parametrize(
    "body",
    [
        [],
        None,
        {"explode": 1},
        {"duplicate": 1.1},
        {"duplicate": True},
        {"duplicate": float("nan")},
        {"delay_s": -1},
        {"delay_s": [2, 1]},
        {"delay_s": [1]},
        {"delay_s": "1"},
        {"reorder": 1},
    ],
)
def test_wrong_faults_are_refused(body: object) -> None:
    with pytest.raises(InvalidArgument):
        parse_faults(body)


def test_delay_is_a_number_or_a_range() -> None:
    assert (parse_delay("0.5"), parse_delay("0.1:2")) == ((0.5, 0.5), (0.1, 2.0))
    with pytest.raises(InvalidArgument, match=r"0\.1:2"):
        parse_delay("soon")


def test_duplicate_is_a_share_of_messages() -> None:
    chance = random.Random(7)
    copies = [Faults(duplicate=0.25).copies(chance) for _ in range(4000)]
    assert set(copies) == {1, 2}
    assert 0.22 < copies.count(2) / len(copies) < 0.28


def test_without_faults_nothing_is_held() -> None:
    assert (Faults().copies(random.Random(1)), Faults().hold_s(random.Random(1))) == (1, 0.0)
