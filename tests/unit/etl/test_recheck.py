from typing import Any

import pyarrow as pa

from esteira.dataset import ENTITY, EVENT_TIME, LABEL, LINE
from etl.recheck import SHOWN, compare


def table(lines: list[int], **columns: Any) -> pa.Table:
    count = len(lines)
    return pa.table(
        {
            ENTITY: pa.array([f"e{line}" for line in lines], pa.string()),
            EVENT_TIME: pa.array([line * 1_000_000 for line in lines], pa.timestamp("us", tz="UTC")),
            LABEL: pa.array(columns.pop("label", [0.0] * count), pa.float64()),
            LINE: pa.array(lines, pa.int64()),
            **{name: pa.array(values) for name, values in columns.items()},
        }
    )


def test_equal_tables_do_not_differ_nor_do_missing_values() -> None:
    one = table([2, 3, 4], price=[1.5, None, float("nan")], town=["a", None, "b"])
    assert list(compare("f", one, one)) == []


def test_each_column_that_differs_is_named_with_its_rows() -> None:
    was = table([2, 3, 4], label=[0.0, 1.0, None], price=[1.0, None, 3.0], town=["a", "b", "c"])
    now = table([2, 3, 4], label=[0.0, 1.0, 1.0], price=[1.0, 2.0, 3.5], town=["a", "b", "c"])
    found = {difference.column: difference for difference in compare("f.csv", was, now)}
    assert set(found) == {LABEL, "price"}
    assert (found["price"].object, found["price"].rows) == ("f.csv", 2)
    assert found["price"].examples == [
        {"line": 3, "entity": "e3", "expected": None, "got": 2.0},
        {"line": 4, "entity": "e4", "expected": 3.0, "got": 3.5},
    ]


def test_rows_on_one_side_only_are_told_apart() -> None:
    (found,) = compare("f", table([2, 3], price=[1.0, 2.0]), table([3, 4], price=[2.0, 3.0]))
    assert (found.column, found.rows) == ("rows", 2)
    assert [(one["line"], one["expected"], one["got"]) for one in found.examples] == [
        (2, True, False),
        (4, False, True),
    ]


def test_additions_do_not_count_where_earlier_parts_were_left_out() -> None:
    was, now = table([2], price=[1.0]), table([2, 3], price=[1.0, 2.0])
    assert list(compare("f", was, now, additions=False)) == []
    (found,) = compare("f", now, was, additions=False)
    assert (found.column, found.rows) == ("rows", 1)


def test_a_column_of_another_type_is_compared_as_text() -> None:
    (found,) = compare("f", table([2, 3], price=["1.0", "x"]), table([2, 3], price=[1.0, 2.0]))
    assert (found.column, found.rows) == ("price", 1)


def test_few_examples_stand_for_many_rows() -> None:
    lines = list(range(2, 200))
    (found,) = compare("f", table(lines, price=[1.0] * 198), table(lines, price=[2.0] * 198))
    assert (found.rows, len(found.examples)) == (198, SHOWN)
