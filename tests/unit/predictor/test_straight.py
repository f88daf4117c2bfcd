"""What is answered in native code is what the rules answer, and is logged so; all else is left to them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esteira.exceptions import BadInput
from esteira_kernel.answers import RANDOM_BYTES, Answerer
from predictor import native, straight
from predictor.inference import JsonQuestion, RowsQuestion, predict
from predictor.native import make_answerer, make_native
from predictor.prediction_log import PredictionLog
from predictor.sampling import Sampler
from predictor.served import ServedRelease
from predictor.serving import Serving
from releases import BuiltRelease, build_release, raw_rows

TEXTS = ["0", "1.5", "-2.5e3", "1e-7", "null", '"a"', '"never seen"', "1e999", "-0", "true", '"1"', "[]", "5e-324"]
TEXTS += ["1e18446744073709551617", "1e-18446744073709551617", "1e-400", "1e00000000000000000000001"]
KINDS = ("classification", "regression")
OWN = ("id", "served_at", "event_time")


class SeenLog(PredictionLog):
    """Keeps what it is given; the sampled share of rows is told with them."""

    def __init__(self, share: float = 0) -> None:
        self.sampler = Sampler(share)
        self.seen: list[dict[str, Any]] = []

    def write(self, pipeline: str, model_version: str, records: Any, *_: Any, **__: Any) -> None:
        """Takes records, as the log does."""
        assert (pipeline, model_version) == ("shop", "v1")
        self.seen += [one for _, part in records for one in json.loads(b"[%b]" % part)]


class Both:
    """One release, and the two ways to its answers."""

    def __init__(self, built: BuiltRelease) -> None:
        self.served = ServedRelease(built.folder, built.sha256)
        self.serving = Serving(built.pointer(), self.served)
        self.features = self.served.release.features

    def straight(self, body: bytes, share: float = 0) -> tuple[Any, list[Any]] | None:
        log = SeenLog(share)
        answer = straight.answer(self.served, log, body)
        return None if answer is None else (json.loads(answer), log.seen)

    def by_the_rules(self, body: bytes, share: float = 0) -> tuple[Any, list[Any]]:
        log, kind = SeenLog(share), "features" if b'"features"' in body else "rows"
        question = RowsQuestion(json.loads(body)[kind], kind)  # type: ignore[arg-type]
        answer = json.loads(msgspec.json.encode(predict(self.serving, log, question)))
        assert answer_of(self, JsonQuestion(body)) == without_ids(answer)
        return answer, log.seen

    def require_alike(self, body: bytes, found: tuple[Any, list[Any]], share: float = 0) -> None:
        answer, logged = found
        expected, expected_log = self.by_the_rules(body, share)
        assert without_ids(answer) == without_ids(expected)
        assert [one["id"] for one in logged] == [one["prediction_id"] for one in answer["predictions"]]
        for one, other in zip(logged, expected_log, strict=True):
            assert one.keys() == other.keys()
            assert {name: one[name] for name in one if name not in OWN} == {
                name: other[name] for name in other if name not in OWN
            }
            assert (one["event_time"] == one["served_at"]) == (other["event_time"] == other["served_at"])
            assert one["event_time"] == other["event_time"] or one["event_time"] == one["served_at"]


def answer_of(both: Both, question: JsonQuestion) -> Any:
    return without_ids(json.loads(msgspec.json.encode(predict(both.serving, SeenLog(), question))))


def without_ids(answer: Any) -> Any:
    return {**answer, "predictions": [{**one, "prediction_id": None} for one in answer["predictions"]]}


@pytest.fixture(scope="module", params=KINDS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    return Both(build_release(tmp_path_factory.mktemp("release"), task=request.param))


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_taken_is_answered_and_logged_as_the_rules_do(both: Both, data: st.DataObject) -> None:
    names = [feature.name for feature in both.features]
    rows = data.draw(st.lists(st.dictionaries(st.sampled_from([*names, "else"]), st.sampled_from(TEXTS)), max_size=40))
    told = ",".join("{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in row.items()) + "}" for row in rows)
    body = f'{{"features":[{told}]}}'.encode()
    found = both.straight(body)
    if found is None:
        return
    both.require_alike(body, found)


def test_ordinary_features_are_taken(both: Both) -> None:
    row = {f.name: 1.5 if f.kind == "numeric" else f.categories[0] for f in both.features}
    body = msgspec.json.encode({"features": [row, {}] * 300})
    found = both.straight(body)
    assert found is not None
    both.require_alike(body, found)
    assert len(found[1]) == 600


ROW = st.fixed_dictionaries(
    {"id": st.integers(-(2**70), 2**70) | st.integers(0, 9)},
    optional={
        "at": st.none() | st.datetimes().map(lambda at: at.isoformat() + "Z") | st.text(max_size=5),
        "price": st.none() | st.floats() | st.integers(),
        "town": st.none() | st.sampled_from(["Paris", "Rome", "Nowhere"]) | st.text(max_size=8),
    },
)


@given(st.lists(ROW, min_size=1, max_size=20), st.sampled_from([0.0, 1.0]))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_raw_rows_are_answered_and_logged_as_the_rules_do(both: Both, rows: list[Any], share: float) -> None:
    body = json.dumps({"rows": rows}).encode()
    expected = problems(lambda: both.by_the_rules(body))
    if expected:
        assert problems(lambda: both.straight(body, share)) == expected
    elif (found := both.straight(body, share)) is not None:
        both.require_alike(body, found, share)


def problems(ask: Callable[[], Any]) -> Any:
    """Of a request that is refused."""
    try:
        ask()
    except BadInput as error:
        return error.problems
    return None


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("rows", [1, 3, 40, 1000])
def test_ordinary_raw_rows_are_taken(both: Both, rows: int, share: float) -> None:
    given = raw_rows(rows, seed=1)
    body = json.dumps({"rows": [{**row, "town": row["town"] and row["town"] + "é"[: row["id"] % 2]} for row in given]})
    found = both.straight(body.encode(), share)
    assert found is not None
    both.require_alike(body.encode(), found, share)
    assert len(found[1]) == rows


def test_raw_rows_that_duckdb_alone_prepares_are_left_alone(tmp_path: Path) -> None:
    both = Both(build_release(tmp_path, sqlite=False))
    assert both.straight(json.dumps({"rows": raw_rows(2)}).encode()) is None
    assert both.straight(b'{"features": [{}]}') is not None


def test_a_category_longer_than_requests_may_hold_is_left_to_the_rules(both: Both) -> None:
    release = both.served.release
    features = [msgspec.structs.replace(f, categories=["a" * 1001] * (f.kind == "categorical")) for f in both.features]
    assert make_native(release, both.served.model) is not None
    assert make_native(msgspec.structs.replace(release, features=features), both.served.model) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"features": []}',
        b'{"features": [{}], "explain": true}',
        b'{"features": [{}] ',
        b'{"explain": false, "features": [{}]}',
        b'{"rows": [{"id": 1, "at": "2026-01-01T10:00:00Z"}], "explain": true}',
        b'{"rows": [{"id": 1, "at": "2026-01-01T10:00:00Z", "town": "\\\\"}]}',
    ],
)
def test_what_is_not_ordinary_is_left_alone(both: Both, body: bytes) -> None:
    assert both.straight(body) is None


def test_a_link_whose_bits_would_be_others_is_left_to_python(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(native, "has_the_bits_of_logit", lambda: asked.append("") or False)
    require_scores(both, make_answerer(both.served.model, both.served.release.threshold))
    assert asked == ([""] if both.served.model.metadata.link == "logit" else [])


def test_native_logits_have_the_bits_of_pythons() -> None:
    assert native.has_the_bits_of_logit()


def test_a_model_without_trees_is_answered_too(both: Both) -> None:
    scorer: Any = OnlyScores(both.served.model)
    require_scores(both, make_answerer(scorer, both.served.release.threshold))


def require_scores(both: Both, answerer: Answerer) -> None:
    """Those that the release answers, whoever makes them."""
    assert both.served.native is not None
    body = b'{"features": [{}, {"price": 12.5}]}'
    rows = both.served.native.reader.read(body, 2)
    assert rows is not None
    found = answerer.answer(rows, bytes(RANDOM_BYTES), 0)
    assert found is not None
    told = without_ids({"predictions": json.loads(found.answers)})
    assert told["predictions"] == answer_of(both, JsonQuestion(body))["predictions"]


class OnlyScores:
    """A model that native code does not know."""

    def __init__(self, model: Any) -> None:
        self.score = model.score
