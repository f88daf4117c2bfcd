"""Several hands, one order."""

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esteira_cli.predict.sending import AHEAD, in_order


@given(st.lists(st.integers(), max_size=30), st.integers(1, 5))
def test_results_come_in_the_order_of_the_items(items: list[int], hands: int) -> None:
    def work(item: int) -> int:
        time.sleep(item % 3 / 10_000)
        return item * 2

    assert list(in_order(work, items, hands)) == [item * 2 for item in items]


def test_items_are_taken_only_a_few_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    results = in_order(lambda item: item, items(), 3)
    assert [next(results) for _ in range(5)] == list(range(5))
    assert len(taken) <= 5 + 3 * AHEAD
    results.close()


def test_an_error_is_raised_in_its_place_and_ends_the_threads() -> None:
    before = threading.active_count()
    results = in_order(lambda item: 1 // item, [1, 1, 0, 1], 2)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    deadline = time.monotonic() + 5
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_error_of_the_reader_is_raised() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        list(in_order(lambda item: item, items(), 2))
