"""What native code writes of answers is JSON of the right values, as msgspec would write it."""

import json
import math
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esteira_kernel.answers import RANDOM_BYTES, RECORD_ROWS, Answerer, Answers
from esteira_kernel.rows import SMALL_ROWS, RowReader
from esteira_kernel.trees import TreeSums
from unit.kernel.test_trees import example
from unit.kernel.threads import run_at_once

READER = RowReader(["x"], [None])
RANDOM = bytes(range(RANDOM_BYTES))
MOMENT = 1_456_789_012_345_678


def echo(threshold: float | None = None, *, logit: bool = False) -> Answerer:
    """Its sum is its one feature."""
    return Answerer(lambda matrix: matrix[:, 0], threshold, logit=logit)


def ask(
    answerer: Answerer,
    values: list[Any],
    random: bytes = RANDOM,
    moment: int = MOMENT,
    contexts: bytes | None = None,
) -> Answers | None:
    rows = READER.read_values(json.dumps([[value] for value in values]).encode(), len(values))
    assert rows is not None
    return answerer.answer(rows, random, moment, contexts)


def scores(found: Answers | None) -> list[float]:
    assert found is not None
    return [answer["score"] for answer in json.loads(found.answers)]


def records(found: Answers | None) -> list[dict[str, Any]]:
    assert found is not None
    parts = [json.loads(b"[%b]" % part) for _, part in found.records]
    assert [len(part) for part in parts] == [rows for rows, _ in found.records]
    return [one for part in parts for one in part]


def test_an_answer_and_its_record() -> None:
    found = ask(echo(0.5), [0.25, 0.5])
    assert found is not None
    first, second = "00010203-0405-4060-8708-090a0b0c0000", "00010203-0405-4060-8708-090a0b0c0001"
    assert json.loads(found.answers) == [
        {"prediction_id": first, "score": 0.25, "label": False},
        {"prediction_id": second, "score": 0.5, "label": True},
    ]
    moment = "2016-02-29T23:36:52.345678Z"
    told = {"entity": None, "event_time": moment, "served_at": moment}
    assert records(found) == [
        {"id": first, **told, "score": 0.25, "features": [0.25]},
        {"id": second, **told, "score": 0.5, "features": [0.5]},
    ]
    assert "label" not in json.loads(ask(echo(), [1]).answers)[0]  # type: ignore[union-attr]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
@settings(max_examples=500, deadline=None)
def test_numbers_are_written_as_msgspec_writes_them(values: list[float]) -> None:
    found = ask(echo(), values)
    assert found is not None
    told = msgspec.json.encode([{"score": value} for value in values])[1:-1].replace(b'{"score":', b"").split(b"},")
    for written in (found.answers, b"".join(part for _, part in found.records)):
        texts = [text.split(b"}")[0].split(b',"')[0] for text in written.split(b'"score":')[1:]]
        assert texts == [text.rstrip(b"}") for text in told]


@given(st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES))
def test_identities_are_uuids_that_differ(random: bytes) -> None:
    found = ask(echo(), [1.0] * 20, random)
    ids = [UUID(record["id"]) for record in records(found)]
    assert {(one.version, one.variant) for one in ids} == {(4, "specified in RFC 4122")}
    assert len(set(ids)) == 20


@given(st.datetimes(datetime(1970, 1, 1), datetime(2600, 1, 1)))  # noqa: DTZ001  of hypothesis, in UTC
def test_moments_are_those_of_the_calendar(moment: datetime) -> None:
    since = moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    microseconds = (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds
    (record,) = records(ask(echo(), [1.0], moment=microseconds))
    assert datetime.fromisoformat(record["served_at"]) == moment.replace(tzinfo=UTC)


@pytest.mark.parametrize("rows", [1, SMALL_ROWS, SMALL_ROWS + 1, RECORD_ROWS, RECORD_ROWS + 1, 1000])
def test_requests_of_all_sizes_are_answered_row_by_row(rows: int) -> None:
    values = [number / 7 for number in range(rows)]
    found = ask(echo(), values)
    assert found is not None
    assert found.rows == rows
    assert scores(found) == values
    assert [record["score"] for record in records(found)] == values
    assert [record["features"] for record in records(found)] == [[value] for value in values]
    ids = [answer["prediction_id"] for answer in json.loads(found.answers)]
    assert ids == [record["id"] for record in records(found)]
    assert len(set(ids)) == rows
    assert all(count <= RECORD_ROWS for count, _ in found.records)


def test_logits_have_the_bits_of_the_c_librarys_exp() -> None:
    values = [*np.random.default_rng(0).normal(scale=30, size=5000).tolist(), 0.0, -745.0, -1e300, 1e300]

    def by_python(value: float) -> float:
        try:
            return 1.0 / (1.0 + math.exp(-value))
        except OverflowError:
            return 0.0

    expected = [by_python(value) for value in values]
    assert echo(logit=True).scores(np.array(values)).tolist() == expected
    assert scores(ask(echo(logit=True), values[:900])) == expected[:900]


@pytest.mark.parametrize("rows", [1, 3, SMALL_ROWS + 1, RECORD_ROWS + 1])
@pytest.mark.parametrize("length", [0, 5000])
def test_each_record_has_its_own_context(rows: int, length: int) -> None:
    told = [
        {"entity": f'"{number}"\n{"ä" * length}', "event_time": f"at {number}", "row": {"x": [number]}}
        for number in range(rows)
    ]
    contexts = b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in told)
    answerer = echo()
    for _ in range(2):
        found = records(ask(answerer, [1.5] * rows, contexts=contexts))
        assert [{name: one[name] for name in ("entity", "event_time", "row")} for one in found] == told
        assert all(one["served_at"] == "2016-02-29T23:36:52.345678Z" for one in found)
    assert records(ask(answerer, [1.5]))[0]["entity"] is None


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rows", [1, RECORD_ROWS + 1])
def test_a_score_that_is_not_finite_is_not_answered(wrong: float, rows: int) -> None:
    answerer = Answerer(lambda matrix: np.where(matrix[:, 0] == rows - 1, wrong, 1.0), None, logit=False)
    assert ask(answerer, [float(number) for number in range(rows)]) is None
    assert ask(answerer, [-1.0] * rows) is not None


def test_trees_are_scored_without_a_matrix_of_python() -> None:
    sums = TreeSums(example())
    reader, answerer = RowReader(["a", "b"], [None, ["u", "v"]]), Answerer(sums, None, logit=False)
    for rows in (1, 3, SMALL_ROWS + 5):
        given = [{"a": number % 5, "b": "uv"[number % 2]} for number in range(rows)]
        read = reader.read(json.dumps({"features": given}).encode(), 1000)
        assert read is not None
        found = answerer.answer(read, RANDOM, MOMENT)
        matrix = np.array([[row["a"], "uv".index(str(row["b"]))] for row in given], dtype=float)
        assert scores(found) == sums.score(matrix)[:, 0].tolist()


def test_threads_do_not_disturb_each_other() -> None:
    answerer, wrong = echo(), []

    def work(number: int) -> None:
        for _ in range(2000):
            found = ask(answerer, [number] * (1 + number % 3))
            if set(scores(found)) != {number} or {r["features"][0] for r in records(found)} != {number}:
                wrong.append(number)

    run_at_once(work)
    assert not wrong
