from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.windows import Span, Window, window_at, window_index

moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
spans = st.sampled_from(get_args(Span))


@given(moments, spans)
def test_a_moment_lies_in_its_window(moment: datetime, span: Span) -> None:
    window = window_at(moment, span)
    assert window.start <= moment < window.end
    assert window_at(window.start, span) == window


@given(moments, spans)
def test_windows_follow_without_gap_and_so_do_their_numbers(moment: datetime, span: Span) -> None:
    window = window_at(moment, span)
    following = window_at(window.end, span)
    assert following.start == window.end
    assert window_index(following.start, span) == window_index(window.start, span) + 1


@pytest.mark.parametrize(
    ("span", "start", "end"),
    [
        ("hour", datetime(2024, 2, 29, 13, tzinfo=UTC), datetime(2024, 2, 29, 14, tzinfo=UTC)),
        ("day", datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
        ("week", datetime(2024, 2, 26, tzinfo=UTC), datetime(2024, 3, 4, tzinfo=UTC)),
        ("month", datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
    ],
)
def test_windows_are_calendar_spans_in_utc(span: Span, start: datetime, end: datetime) -> None:
    assert window_at(datetime(2024, 2, 29, 13, 59, 59, tzinfo=UTC), span) == Window(start, end)


def test_december_ends_with_the_year() -> None:
    assert window_at(datetime(2023, 12, 31, tzinfo=UTC), "month").end == datetime(2024, 1, 1, tzinfo=UTC)


def test_other_zones_are_brought_to_utc_and_none_is_taken_for_it() -> None:
    east = datetime.fromisoformat("2024-05-01T01:00:00+02:00")
    assert window_at(east, "day").start == datetime(2024, 4, 30, tzinfo=UTC)
    naive = (east - timedelta(hours=2)).replace(tzinfo=None)
    assert window_at(naive, "day") == window_at(east, "day")
