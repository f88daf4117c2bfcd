import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esteira_cli.stack.errors import StackError
from esteira_cli.stack.graph import run_in_order, waves, with_needs

NEEDS = {"postgres": frozenset[str](), "mlflow": frozenset({"postgres"}), "trainer": frozenset({"postgres", "mlflow"})}


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, frozenset[str]]:
    names = [f"n{number}" for number in range(draw(st.integers(1, 8)))]
    return {
        name: frozenset(draw(st.sets(st.sampled_from(names[:index])))) if index else frozenset()
        for index, name in enumerate(names)
    }


@given(graphs())
def test_everything_runs_once_and_after_what_it_needs(needs: dict[str, frozenset[str]]) -> None:
    done: list[str] = []

    def work(name: str) -> None:
        assert needs[name] <= set(done)
        done.append(name)

    run_in_order(needs, work, threading.Event())
    assert sorted(done) == sorted(needs)


@given(graphs())
def test_each_wave_needs_only_waves_before_it(needs: dict[str, frozenset[str]]) -> None:
    seen: set[str] = set()
    for wave in waves(needs):
        assert all(needs[name] <= seen for name in wave)
        seen |= wave
    assert seen == set(needs)


def test_independent_work_runs_side_by_side() -> None:
    both = threading.Barrier(2, timeout=10)
    run_in_order({"a": frozenset(), "b": frozenset()}, lambda _: _meet(both), threading.Event())
    assert not both.broken


def test_a_failure_cancels_what_runs_and_starts_nothing_more() -> None:
    started: list[str] = []
    cancel = threading.Event()

    def work(name: str) -> None:
        started.append(name)
        if name == "bad":
            raise StackError("bad failed")
        assert cancel.wait(10)

    with pytest.raises(StackError, match="bad failed"):
        run_in_order({"bad": frozenset(), "slow": frozenset(), "after": frozenset({"bad"})}, work, cancel)
    assert sorted(started) == ["bad", "slow"]


def test_needs_are_followed_to_the_end() -> None:
    assert with_needs({"trainer"}, NEEDS) == {"trainer", "mlflow", "postgres"}


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(StackError, match=r"'mlfow'; there are: mlflow, postgres, trainer"):
        with_needs({"mlfow"}, NEEDS)


def test_a_circle_is_refused() -> None:
    with pytest.raises(StackError, match="need one another: a, b"):
        waves({"a": frozenset({"b"}), "b": frozenset({"a"})})


def _meet(both: threading.Barrier) -> None:
    both.wait()
