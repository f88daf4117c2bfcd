import io
import json
import threading
import weakref
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask.testing import FlaskClient

from esteira.events import PredictionsServed, decode
from esteira.exceptions import BadInput, ReleaseRefused, Unavailable
from esteira.schema import check_row
from predictor.app import create_app
from predictor.decoding import Body
from predictor.inference import RowsQuestion, predict
from predictor.limits import MAX_REQUEST_BYTES
from predictor.native import make_native
from predictor.prediction_log import PredictionLog
from predictor.publishing import SpoolPublisher
from predictor.served import ServedRelease
from predictor.serving import Servings
from publishers import Mailbox
from releases import BuiltRelease, build_release, raw_rows

PREDICT = "/pipelines/shop/predict"


class Service:
    """The predictor over releases on local disk."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.publisher = Mailbox()
        self.servings = Servings(cache)
        self.log = PredictionLog(self.publisher, cache / "spool")  # type: ignore[arg-type]
        self.spools = SpoolPublisher(self.publisher, cache / "spool")  # type: ignore[arg-type]
        app = create_app(self.servings, self.log, self.publisher, None)  # type: ignore[arg-type]
        self.client: FlaskClient = app.test_client()

    def serve(self, built: BuiltRelease, generation: int = 1) -> None:
        target = self.cache / built.sha256
        if not target.exists():
            self.cache.mkdir(exist_ok=True)
            built.folder.rename(target)
        self.servings.serve("shop", built.pointer(generation), self.cache / built.sha256)
        self.servings._looked = True

    def predict(self, body: Any, path: str = PREDICT) -> tuple[int, Any]:
        answer = self.client.post(path, json=body)
        return answer.status_code, answer.get_json()

    def logged(self) -> list[Any]:
        self.spools.publish()
        events = [decode(PredictionsServed, m.data, m.attributes) for m in self.publisher.messages]
        return [prediction for event in events for prediction in event.predictions]


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path / "cache")


@pytest.fixture
def built(tmp_path: Path, service: Service) -> BuiltRelease:
    built = build_release(tmp_path)
    service.serve(built)
    return built


def paths(answer: Any) -> list[str]:
    return [problem["path"] for problem in answer["error"]["problems"]]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_answers_with_the_bits_of_scikit_learn_and_logs_the_same(tmp_path: Path, service: Service, task: str) -> None:
    built = build_release(tmp_path, task=task)
    service.serve(built)
    status, answer = service.predict({"rows": raw_rows(50, seed=3)})
    typed = [check_row(built.release.columns, row, "")[0] for row in raw_rows(50, seed=3)]
    expected = built.expected(service.servings.get("shop").runtime.features(typed))
    assert (status, answer["model_version"]) == (200, "v1")
    assert [p["score"] for p in answer["predictions"]] == expected
    assert ["label" in p for p in answer["predictions"]] == [task == "classification"] * 50
    logged = service.logged()
    assert [(str(p.id), p.score) for p in logged] == [(p["prediction_id"], p["score"]) for p in answer["predictions"]]
    assert [p.entity for p in logged] == [str(row["id"]) for row in raw_rows(50)]
    assert all(p.event_time == row["at"] for p, row in zip(logged, typed, strict=True))


def test_features_score_as_the_rows_they_come_from(service: Service, built: BuiltRelease) -> None:
    typed = [check_row(built.release.columns, row, "")[0] for row in raw_rows(20)]
    columns = service.servings.get("shop").runtime.features(typed)
    finite = {name: values for name, values in columns.items() if name != "huge"}
    features = [{name: values[i] for name, values in finite.items()} for i in range(20)]
    _, by_rows = service.predict({"rows": raw_rows(20)})
    _, by_features = service.predict({"features": features})
    assert [p["score"] for p in by_features["predictions"]] == [p["score"] for p in by_rows["predictions"]]
    assert [p.entity for p in service.logged()][20:] == [None] * 20


ROW = {"id": 1, "at": "2026-01-01T00:00:00Z", "price": 1.5, "town": "Paris"}


@pytest.mark.parametrize(
    "body, path",
    [
        ({}, ""),
        ({"rows": [ROW], "features": []}, ""),
        ({"rows": []}, "rows"),
        ({"rows": [ROW] * 1001}, "rows"),
        ({"rows": {}}, "rows"),
        ({"rows": [ROW, 3]}, "rows[1]"),
        ({"rows": [ROW, {**ROW, "id": "x"}]}, "rows[1].id"),
        ({"rows": [{**ROW, "id": True}]}, "rows[0].id"),
        ({"rows": [{**ROW, "price": -1}]}, "rows[0].price"),
        ({"rows": [{**ROW, "delay": 3}]}, "rows[0].delay"),
        ({"rows": [{**ROW, "town": "x" * 21}]}, "rows[0].town"),
        ({"rows": [{**ROW, "at": "yesterday"}]}, "rows[0].at"),
        ({"rows": [{**ROW, "at": "9999-12-31T05:00:00Z"}]}, "rows[0].at"),
        ({"features": [{"price": "x"}]}, "features[0].price"),
        ({"features": [{"nope": 1}]}, "features[0].nope"),
    ],
)
def test_a_wrong_body_is_named_by_its_path(service: Service, built: BuiltRelease, body: Any, path: str) -> None:
    status, answer = service.predict(body)
    assert (status, paths(answer)[0]) == (400, path)
    assert service.logged() == []


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        (PREDICT, ROW, dict.fromkeys(ROW, "unknown field; send an object of rows, features, explain")),
        (PREDICT, {"row": ROW}, {"row": "unknown field; send an object of rows, features, explain"}),
        (PREDICT, [ROW], {"": "expected an object of rows, features, explain, got an array"}),
        (PREDICT, {"rows": {}}, {"rows": "Expected `array`, got `object`"}),
        (PREDICT, {"rows": None}, {"rows": "Expected `array`, got `null`"}),
        (PREDICT, {"rows": None, "features": [{}]}, {"rows": "Expected `array`, got `null`"}),
        (
            "/pipelines/shop/feedback",
            {"label": 1},
            {"outcomes": "missing; send an object of outcomes", "label": "unknown field; send an object of outcomes"},
        ),
    ],
)
def test_a_body_of_another_form_is_told_what_to_send(
    service: Service, built: BuiltRelease, path: str, body: Any, told: dict[str, str]
) -> None:
    status, answer = service.predict(body, path)
    assert (status, {p["path"]: p["message"] for p in answer["error"]["problems"]}) == (400, told)


def test_other_wrong_requests_have_their_status(service: Service, built: BuiltRelease) -> None:
    post = service.client.post
    assert post(PREDICT, data=b"{", content_type="application/json").status_code == 400
    assert post(PREDICT, data=b'{"rows": [' + b"[" * 5000, content_type="application/json").status_code == 400
    assert post(PREDICT, data=b'{"rows": [{"id": 1e999}]}', content_type="application/json").status_code == 400
    assert post(PREDICT, data=b"{}", content_type="text/plain").status_code == 415
    assert post(PREDICT, data=b" " * (MAX_REQUEST_BYTES + 1), content_type="application/json").status_code == 413
    assert service.predict({"rows": [ROW]}, "/pipelines/chop/predict")[0] == 404


def test_problems_are_told_up_to_a_limit(service: Service, built: BuiltRelease) -> None:
    _, answer = service.predict({"rows": [{}] * 1000})
    assert len(paths(answer)) == 100


class OverflowingModel:
    """A model whose log link overflows."""

    def __init__(self, served: Any) -> None:
        self._served = served
        self.native = make_native(served.release, self)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._served, name)

    @property
    def model(self) -> Any:
        return self

    @property
    def encoder(self) -> Any:
        return self._served.model.encoder

    def score(self, _: Any) -> Any:
        import numpy as np

        return np.array([1.0, np.inf])


def test_a_score_that_is_no_number_is_an_error_and_not_logged(service: Service, built: BuiltRelease) -> None:
    serving = service.servings.get("shop")
    broken = msgspec.structs.replace(serving, runtime=OverflowingModel(serving.runtime))  # type: ignore[arg-type]
    service.servings._servings = {"shop": broken}
    status, answer = service.predict({"rows": [ROW, ROW]})
    assert (status, "inf for row 1" in answer["error"]["message"]) == (500, True)
    assert service.logged() == []


def test_feedback_is_published_with_the_key_that_predictions_have(service: Service, built: BuiltRelease) -> None:
    body = {"outcomes": [{"entity": {"id": 7}, "label": True, "event_time": "2026-01-01T00:00:00"}]}
    assert service.predict(body, "/pipelines/shop/feedback") == (202, {"accepted": 1})
    (outcome,) = json.loads(service.publisher.messages[0].data)["outcomes"]
    assert outcome == {"entity": "7", "label": 1.0, "event_time": "2026-01-01T00:00:00Z"}
    service.publisher.error = Unavailable("away")
    assert service.predict(body, "/pipelines/shop/feedback")[0] == 503


@pytest.mark.parametrize(
    "outcome, path",
    [
        ({"entity": {"id": "x"}, "label": 1}, "outcomes[0].entity.id"),
        ({"entity": {}, "label": 1}, "outcomes[0].entity.id"),
        ({"entity": {"id": 1}, "label": 0.5}, "outcomes[0].label"),
        ({"entity": {"id": 1}, "label": int("9" * 309)}, "outcomes[0].label"),
        ({"entity": {"id": 1}}, "outcomes[0].label"),
        ({"entity": {"id": 1}, "label": "yes"}, "outcomes[0].label"),
        ({"entity": {"id": 1}, "label": 1, "event_time": "yesterday"}, "outcomes[0].event_time"),
        ({"entity": {"id": 1}, "label": 1, "event_time": 3}, "outcomes[0].event_time"),
        ({"entity": {"id": 1}, "label": 1, "when": 3}, "outcomes[0].when"),
        ({"label": 1}, "outcomes[0].entity"),
        (3, "outcomes[0]"),
        ({"entity": {"id": 1}, "label": 1, "event_time": "9999-12-31T05:00:00Z"}, "outcomes[0].event_time"),
    ],
)
def test_wrong_feedback_is_named_by_its_path(service: Service, built: BuiltRelease, outcome: Any, path: str) -> None:
    status, answer = service.predict({"outcomes": [outcome]}, "/pipelines/shop/feedback")
    assert (status, paths(answer)) == (400, [path])
    assert service.predict({"outcomes": []}, "/pipelines/shop/feedback")[0] == 400


@pytest.mark.parametrize("digits", [309, 400, 401, 5000])
def test_a_label_of_more_digits_than_a_number_has_is_named(tmp_path: Path, service: Service, digits: int) -> None:
    service.serve(build_release(tmp_path, task="regression"))
    body = b'{"outcomes": [{"entity": {"id": 1}, "label": -%s}]}' % (b"9" * digits)
    answer = service.client.post("/pipelines/shop/feedback", data=body, content_type="application/json")
    assert (answer.status_code, paths(answer.get_json())) == (400, ["outcomes[0].label"])
    assert len(answer.data) < 300


class WaitingRelease(ServedRelease):
    """Waits for something before it makes features."""

    def encode(self, read: Body) -> Any:
        threading.Event().wait(0.3)
        return super().encode(read)


def test_the_time_of_an_answer_is_the_processors_without_waiting(service: Service, built: BuiltRelease) -> None:
    serving = service.servings.get("shop")
    waiting = WaitingRelease(service.cache / built.sha256, built.sha256)
    predict(msgspec.structs.replace(serving, runtime=waiting), service.log, RowsQuestion([raw_rows(1)[0]], "rows"))
    service.logged()
    (event,) = [decode(PredictionsServed, m.data, m.attributes) for m in service.publisher.messages]
    assert 0 < event.microseconds < 200_000


def test_the_spools_of_workers_are_told_to_admins_alone(service: Service, built: BuiltRelease) -> None:
    service.predict({"rows": raw_rows(2)})
    told = service.client.get("/pipelines/shop").get_json()["log"]
    assert told == {
        "added": 2,
        "pending": 2,
        "lost": 0,
        "keeper": {"published": 0, "lost": 0, "waiting_bytes": 0},
    }


def test_the_openapi_examples_work(service: Service, built: BuiltRelease) -> None:
    document = service.client.get("/openapi.json").get_json()
    assert document["openapi"] == "3.1.0"
    for path in (PREDICT, "/pipelines/shop/feedback"):
        operation = document["paths"][path]["post"]
        example = operation["requestBody"]["content"]["application/json"]["example"]
        assert str(service.predict(example, path)[0]) in operation["responses"]


def test_the_documentation_and_its_assets_come_from_here(service: Service) -> None:
    page = service.client.get("/docs/")
    assert page.status_code == 200
    assert b"/openapi.json" in page.data
    with service.client.get("/docs/swagger-ui-bundle.js") as script:
        assert (script.status_code, len(script.data) > 100_000) == (200, True)


def test_pipelines_are_listed_and_described(service: Service, built: BuiltRelease) -> None:
    listed = service.client.get("/pipelines").get_json()
    assert listed == [{"pipeline": "shop", "version": "v1", "generation": 1}]
    described = service.client.get("/pipelines/shop").get_json()
    assert (described["champion"]["version"], described["task"]) == ("v1", "classification")
    assert described["champion"]["reason"] == "beats its champion"


def test_a_bad_release_is_refused_and_the_old_one_stays(service: Service, built: BuiltRelease, tmp_path: Path) -> None:
    other = build_release(tmp_path / "other", "v2")
    pointer = msgspec.structs.replace(other.pointer(2), pipeline="chop")
    service.serve(other, 2)
    with pytest.raises(ReleaseRefused, match="a release of shop"):
        service.servings.serve("chop", pointer, service.cache / other.sha256)
    assert [s.pointer.version for s in service.servings.all()] == ["v2"]


def test_a_swap_under_load_drops_no_request(service: Service, built: BuiltRelease, tmp_path: Path) -> None:
    others = [build_release(tmp_path / name, name) for name in ("v2", "v3")]
    answers: list[tuple[int, str]] = []

    def ask() -> None:
        for _ in range(50):
            status, answer = service.predict({"rows": [ROW]})
            answers.append((status, answer.get("model_version", "")))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for generation, other in enumerate(others, 2):
        service.serve(other, generation)
    for thread in threads:
        thread.join()
    assert [status for status, _ in answers] == [200] * 200
    assert service.predict({"rows": [ROW]})[1]["model_version"] == "v3"


def test_a_replaced_release_gives_its_memory_back(service: Service, built: BuiltRelease, tmp_path: Path) -> None:
    service.predict({"rows": [ROW]})
    old = weakref.ref(service.servings.get("shop").runtime.query)
    service.serve(build_release(tmp_path / "next", "v2"), 2)
    assert old() is None


def test_the_log_catches_up_after_an_outage_with_the_same_event_id(service: Service, built: BuiltRelease) -> None:
    service.publisher.error = Unavailable("away")
    for _ in range(3):
        assert service.predict({"rows": [ROW]})[0] == 200
        with pytest.raises(Unavailable):
            service.spools.publish()
    service.publisher.error = None
    assert len(service.logged()) == 3
    assert (service.log.added, service.spools.published, service.spools.lost) == (3, 3, 0)


def test_a_message_that_can_never_be_published_does_not_stop_the_others(service: Service, built: BuiltRelease) -> None:
    service.publisher.error = BadInput([])
    service.predict({"rows": [ROW]})
    service.spools.publish()
    service.publisher.error = None
    service.predict({"rows": [ROW]})
    assert (len(service.logged()), service.spools.lost) == (1, 1)


def test_a_body_that_was_not_sent_to_its_end_is_refused(service: Service, built: BuiltRelease) -> None:
    body = b"id,at,price,town\n1,2026-01-01T00:00:00Z,2,Rome\n"
    for path, kind in (("/invocations", "text/csv"), ("/pipelines/shop/predict", "application/json")):
        environ = {"CONTENT_LENGTH": str(len(body) + 9), "wsgi.input": io.BytesIO(body), "wsgi.input_terminated": True}
        answer = service.client.post(path, content_type=kind, environ_overrides=environ)
        assert answer.status_code == 400
        assert f"ends after {len(body)} of {len(body) + 9} bytes" in answer.get_data(as_text=True)


@pytest.mark.parametrize("letter", [b"k", b"\xff"])
def test_a_name_of_megabytes_is_not_told_whole(service: Service, built: BuiltRelease, letter: bytes) -> None:
    body = b'{"features": [{"%b": 1}]}' % (letter * (2 << 20))
    answer = service.client.post("/pipelines/shop/predict", data=body, content_type="application/json")
    assert answer.status_code == 400
    assert len(answer.data) < 20_000
