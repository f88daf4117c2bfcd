"""What native code makes of a statement of SQLite is what Python's `sqlite3` makes of it, or nothing."""

import gc
import json
import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec
import psutil
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from esteira_kernel import sqlite
from esteira_kernel.sqlite import SMALL_ROWS, Query, open_with_handle
from unit.kernel.threads import run_at_once

ECHO = "SELECT ?1 AS a, ?2 AS b, ?3 AS c"


def connect() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.create_function("twice", 1, lambda value: value * 2)
    return connection


def make(statement: str, columns: list[int], open_connection: Callable[[], sqlite3.Connection] = connect) -> Query:
    connection, handle = open_with_handle(open_connection)
    assert handle is not None
    return Query(connection, handle, statement, columns)


def run(query: Query, rows: list[Any]) -> Any:
    found = query.run(msgspec.json.encode(rows), len(rows))
    return None if found is None else json.loads(found)


NUMBER = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUE = st.none() | NUMBER | st.text()


@given(st.lists(st.tuples(VALUE, VALUE, VALUE), min_size=1, max_size=40))
@settings(max_examples=500, deadline=None)
def test_values_come_back_as_python_has_them(rows: list[Any]) -> None:
    query, python = make(ECHO, [2, 0, 1]), connect()
    expected = [[row[2], row[0], row[1]] for row in (python.execute(ECHO, row).fetchone() for row in rows)]
    found = run(query, rows)
    if b"\\" in msgspec.json.encode(rows):
        assert found is None
    else:
        finite = json.loads(msgspec.json.encode(expected))  # it has null for what is not finite
        assert repr(found) == repr(finite)


STATEMENTS = [
    "SELECT ?1 + ?2 AS a, ?1 / ?2 AS b, ?3 || ?1 AS c",
    "SELECT twice(?1) AS a, lower(?3) AS b, CASE WHEN ?2 > 0 THEN ?1 ELSE -?1 END AS c",
    "SELECT CAST(?1 AS INTEGER) AS a, ?1 * 1e300 * ?2 AS b, substr(?3, 1, 2) AS c",
    "SELECT length(?3) AS a, coalesce(?1, ?2, -1) AS b, round(?2, 2) AS c",
]


@pytest.mark.parametrize("statement", STATEMENTS)
@given(st.lists(st.tuples(VALUE, VALUE, st.none() | st.text("aäßZ '%", max_size=9)), min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_expressions_give_what_they_give_in_python(statement: str, rows: list[Any]) -> None:
    python = connect()
    try:
        expected = [list(python.execute(statement, row).fetchone()) for row in rows]
    except (sqlite3.Error, OverflowError):
        assert run(make(statement, [0, 1, 2]), rows) is None
        return
    found = run(make(statement, [0, 1, 2]), rows)
    if found is not None:
        assert repr(found) == repr(json.loads(msgspec.json.encode(expected)))
    else:
        assert any(isinstance(value, bytes | str) for row in [*rows, *expected] for value in row)


@given(st.text('[]{},:"\\ntrueflsa0123456789.eE+- \x00', max_size=40))
@example("[[1,2,3],]")
@example('[[1,2,"')
@example("[[1,2,3]")
@example("[[1,2]]")
@example("[[1,2,3,4]]")
@example("[[1e999,2,3]]")
@example("[[9223372036854775808,2,3]]")
@settings(max_examples=1000, deadline=None)
def test_no_text_ends_the_process(text: str) -> None:
    query = make(ECHO, [0, 1, 2])
    found = query.run(text.encode(), 1)
    if found is not None:
        assert len(json.loads(found)) == len(json.loads(text))
    assert run(query, [[1, "a", None]]) == [[1, "a", None]]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT ?1 AS a WHERE ?1 > 5",
        "SELECT ?1 AS a UNION ALL SELECT 2",
        "SELECT x'00' AS a, ?1 AS b",
        "SELECT abs(?1 - 9223372036854775807 - 2) AS a",
        "SELECT twice(?1) / (SELECT raise_it()) AS a",
        "SELECT '\"' AS a, ?1 AS b",
        "SELECT char(10) AS a, ?1 AS b",
        "SELECT CAST(x'ff41' AS TEXT) AS a, ?1 AS b",
        "SELECT printf('%.*c', 100000, 'a') AS a, ?1 AS b",
    ],
)
def test_what_python_has_to_say_is_left_to_it(statement: str) -> None:
    def open_connection() -> sqlite3.Connection:
        connection = connect()
        connection.create_function("raise_it", 0, lambda: 1 / 0)
        return connection

    query = make(statement, [0], open_connection)
    assert run(query, [[1]]) is None
    assert run(query, [[1]] * (SMALL_ROWS + 1)) is None


@pytest.mark.parametrize("rows", [1, SMALL_ROWS, SMALL_ROWS + 1, 1000])
def test_any_number_of_rows_is_taken(rows: int) -> None:
    given = [[number, number / 7, f"ä{number}"] for number in range(rows)]
    assert run(make(ECHO, [0, 1, 2]), given) == given


def test_tables_are_joined() -> None:
    def open_connection() -> sqlite3.Connection:
        connection = connect()
        connection.executescript("CREATE TABLE t (k TEXT, v REAL); INSERT INTO t VALUES ('a', 1.5), ('b', NULL)")
        return connection

    query = make("SELECT ?1 AS k, v FROM (SELECT ?1 AS k) LEFT JOIN t USING (k)", [1, 0], open_connection)
    assert run(query, [["a"], ["b"], ["c"]]) == [[1.5, "a"], [None, "b"], [None, "c"]]


def test_statements_that_sqlite_does_not_take_are_refused() -> None:
    for statement, columns in (("SELECT nothing", [0]), (ECHO, [3]), (ECHO, [-1])):
        with pytest.raises(ValueError):
            make(statement, columns)


def test_threads_do_not_disturb_each_other() -> None:
    wrong: list[Any] = []

    def work(number: int) -> None:
        query = make("SELECT twice(?1) AS a", [0])
        for count in (1, 3, SMALL_ROWS + 1) * 300:
            found = run(query, [[number]] * count)
            wrong.extend([] if found == [[2 * number]] * count else [number])

    run_at_once(work)
    assert not wrong


def test_connections_and_statements_are_given_back() -> None:
    def use() -> None:
        query = make("SELECT ?1 AS a, randomblob(100000) AS b", [0])
        assert run(query, [[1]]) == [[1]]

    use()
    gc.collect()
    before = psutil.Process().num_fds(), psutil.Process().memory_info().rss
    for _ in range(2000):
        use()
    after = psutil.Process().num_fds(), psutil.Process().memory_info().rss
    assert after[0] == before[0]
    assert after[1] - before[1] < 50_000_000  # each of 2,000 has a connection of 60 kB and a blob of 100


def test_without_its_functions_nothing_is_known_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sqlite._sqlite3, "__file__")  # as where it is built into the interpreter
    assert sqlite._find_sqlite.__wrapped__() is None
