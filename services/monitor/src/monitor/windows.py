"""Calendar windows in UTC: the spans of event time that are judged as one."""

from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

Span = Literal["hour", "day", "week", "month"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONDAY = datetime(1969, 12, 29, tzinfo=UTC)
_LENGTHS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}


class Window(msgspec.Struct, frozen=True, order=True):
    """From `start`, inclusive, to `end`, exclusive."""

    start: datetime
    end: datetime


def window_at(moment: datetime, span: Span) -> Window:
    """The window that holds `moment`; weeks begin on Monday, as in ISO 8601."""
    start = window_start(moment, span)
    return Window(start, _next_month(start) if span == "month" else start + _LENGTHS[span])


def window_start(moment: datetime, span: Span) -> datetime:
    """Where the window begins that holds `moment`: what Postgres's `date_trunc` gives in UTC."""
    hour = as_utc(moment).replace(minute=0, second=0, microsecond=0)
    if span == "hour":
        return hour
    day = hour.replace(hour=0)
    if span == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if span == "month" else day


def window_index(start: datetime, span: Span) -> int:
    """A window's position in time, consecutive windows being consecutive numbers; the first of 1970 is 0."""
    if span == "month":
        return (start.year - _EPOCH.year) * 12 + start.month - 1
    return (start - (_MONDAY if span == "week" else _EPOCH)) // _LENGTHS[span]


def as_utc(moment: datetime) -> datetime:
    """The same moment in UTC; one without a zone is taken to be in UTC."""
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _next_month(start: datetime) -> datetime:
    return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
