"""What is answered in native code is what the rules answer, and is logged so; all else is left to them."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from predictor import straight
from predictor.inference import JsonQuestion, RowsQuestion, predict
from predictor.prediction_log import PredictionLog
from predictor.served import ServedRelease
from predictor.serving import Serving
from releases import BuiltRelease, build_release

TEXTS = ["0", "1.5", "-2.5e3", "1e-7", "null", '"a"', '"never seen"', "1e999", "-0", "true", '"1"', "[]", "5e-324"]
KINDS = ("classification", "regression")


class SeenLog(PredictionLog):
    """Keeps what it is given."""

    def __init__(self) -> None:
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

    def straight(self, body: bytes) -> tuple[Any, list[Any]] | None:
        assert self.served.straight is not None
        log = SeenLog()
        answer = self.served.straight.answer(body, log)
        return None if answer is None else (json.loads(answer), log.seen)

    def by_the_rules(self, body: bytes) -> tuple[Any, list[Any]]:
        log = SeenLog()
        question = RowsQuestion(json.loads(body)["features"], "features")
        answer = json.loads(msgspec.json.encode(predict(self.serving, log, question)))
        assert answer_of(self, JsonQuestion(body)) == without_ids(answer)
        return answer, log.seen


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
    answer, logged = found
    expected, expected_log = both.by_the_rules(body)
    assert without_ids(answer) == without_ids(expected)
    assert [one["id"] for one in logged] == [one["prediction_id"] for one in answer["predictions"]]
    for one, other in zip(logged, expected_log, strict=True):
        assert one.keys() == other.keys()
        assert [one[name] for name in ("score", "entity", "features")] == [
            other[name] for name in ("score", "entity", "features")
        ]
        assert one["event_time"] == one["served_at"]


def test_ordinary_features_are_taken(both: Both) -> None:
    row = {f.name: 1.5 if f.kind == "numeric" else f.categories[0] for f in both.features}
    body = msgspec.json.encode({"features": [row, {}] * 300})
    found = both.straight(body)
    assert found is not None
    assert without_ids(found[0]) == without_ids(both.by_the_rules(body)[0])
    assert len(found[1]) == 600


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"features": []}', b'{"rows": [{}]}', b'{"features": [{}], "explain": true}', b'{"features": [{}] '],
)
def test_what_is_not_ordinary_is_left_alone(both: Both, body: bytes) -> None:
    assert both.straight(body) is None


def test_a_link_whose_bits_would_be_others_is_left_to_python(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(straight, "_has_the_bits_of_logit", lambda: asked.append("") or False)
    served = both.served
    body = b'{"features": [{}]}'
    answer = straight.Straight(served.release, served.model).answer(body, SeenLog())
    assert answer is not None
    assert without_ids(json.loads(answer)) == answer_of(both, JsonQuestion(body))
    assert asked == ([""] if served.model.metadata.link == "logit" else [])


def test_native_logits_have_the_bits_of_pythons() -> None:
    assert straight._has_the_bits_of_logit()


@pytest.mark.parametrize("trees", [True, False])
def test_a_model_without_trees_is_answered_too(both: Both, trees: bool) -> None:
    body = b'{"features": [{}, {}]}'
    model = both.served.model
    scorer = model if trees else OnlyScores(model)
    answer = straight.Straight(both.served.release, scorer).answer(body, SeenLog())  # type: ignore[arg-type]
    assert answer is not None
    assert without_ids(json.loads(answer)) == answer_of(both, JsonQuestion(body))


class OnlyScores:
    """A model that native code does not know."""

    def __init__(self, model: Any) -> None:
        self.score = model.score
