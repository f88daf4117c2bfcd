"""What a row is in JSON, and how rows are cut into requests."""

import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esteira_cli.client.encoding import MAX_BYTES, MAX_ROWS, Unsayable, bodies, encode
from esteira_cli.client.errors import PredictorRefused
from predictor.decoding import MAX_ROWS as SERVICE_ROWS
from predictor.limits import MAX_REQUEST_BYTES

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def test_the_limits_are_the_services() -> None:
    assert (MAX_ROWS, MAX_BYTES) == (SERVICE_ROWS, MAX_REQUEST_BYTES)


@given(JSON)
def test_what_json_has_comes_back_the_same(value: Any) -> None:
    assert json.loads(encode(value)) == value


@pytest.mark.parametrize(
    "value, said",
    [
        (float("nan"), None),
        (np.float64("nan"), None),
        (np.float32("nan"), None),
        (pd.NaT, None),
        (pd.NA, None),
        (np.datetime64("NaT"), None),
        (Decimal("NaN"), None),
        (np.int8(-3), -3),
        (np.uint64(2**63), 2**63),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (Decimal("1.5"), 1.5),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3), "2026-01-02T03:00:00Z"),  # noqa: DTZ001  without a zone it is in UTC
        (datetime(2026, 1, 2, 3, 4, 5, 6, UTC), "2026-01-02T03:04:05.000006Z"),
        (datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=-5))), "2026-01-02T08:00:00Z"),
        (pd.Timestamp("2026-01-02T03:00:00.123456789"), "2026-01-02T03:00:00.123456Z"),
        (pd.Timestamp("2026-01-02T03:00:00", tz="Europe/Paris"), "2026-01-02T02:00:00Z"),
        (np.datetime64("2026-01-02T03:00:00.000000001", "ns"), "2026-01-02T03:00:00Z"),
        (np.datetime64("2026-01-02", "D"), "2026-01-02T00:00:00Z"),
    ],
    ids=repr,
)
def test_values_of_python_numpy_and_pandas_have_one_form(value: Any, said: Any) -> None:
    assert json.loads(encode({"a": value})) == {"a": said}
    assert json.loads(encode({"a": value, "b": [math.nan, value]})) == {"a": said, "b": [None, said]}


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "value",
    [
        float("inf"),
        np.float32("-inf"),
        Decimal("Infinity"),
        b"x",
        object(),
        1j,
        np.bytes_(b"x"),
        np.arange(3),
        "\ud800",
        {"\udcff": 1},
        {b"a": 1},
        {1: float("nan")},
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=5))),
        LOOP,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(Unsayable):
        encode({"a": value})


@given(st.lists(st.integers(0, 3_000_000), max_size=12))
def test_bodies_hold_all_rows_in_order_and_no_more_than_the_service_reads(sizes: list[int]) -> None:
    found = list(bodies("rows", ({"a": "x" * size} for size in sizes)))
    read = [json.loads(body.data)["rows"] for body in found]
    assert [len(row["a"]) for rows in read for row in rows] == sizes
    assert all(len(body.data) <= MAX_BYTES for body in found)
    assert [len(rows) for rows in read] == [body.rows for body in found]
    assert [body.offset for body in found] == [sum(map(len, read[:at])) for at in range(len(read))]


def test_many_small_rows_are_cut_by_number() -> None:
    assert [body.rows for body in bodies("rows", [{"a": 1}] * 2001)] == [1000, 1000, 1]


def test_every_row_that_cannot_be_sent_is_named() -> None:
    with pytest.raises(PredictorRefused) as caught:
        list(bodies("rows", [{"a": object()}, {"a": 1}, {"a": 1, "b": b""}]))
    assert sorted(caught.value.by_row()) == [0, 2]


def test_a_row_that_is_no_object_is_named_by_its_place() -> None:
    with pytest.raises(PredictorRefused, match=r"rows\[1\]: expected an object of columns, got bytes"):
        list(bodies("rows", [{"a": 1}, b"x"]))  # type: ignore[list-item]
