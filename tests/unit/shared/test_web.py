import base64
import json
import logging
from io import BytesIO
from uuid import uuid4

import msgspec
import pytest
from flask import Blueprint, Flask, request
from flask.testing import FlaskClient

from esteira import exceptions
from esteira.events import DatasetPrepared, RawDataUploaded, RetrainRequested, encode
from esteira.exceptions import BadInput, Conflict, EsteiraError, Problem, Unavailable
from esteira.logs import current_trace
from esteira.pushes import Delivery, PushVerifier
from esteira.web import STATUS, create_base_app, event_route, json_response, read_json, task_route

LIMIT = 4096
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Rows(msgspec.Struct):
    rows: list[dict[str, int]]


class Receiver:
    """A service that hears `retrain-requested` and answers as it is told."""

    def __init__(self, verifier: PushVerifier | None = None) -> None:
        self.error: Exception | None = None
        self.ready: Exception | None = None
        self.seen: list[tuple[object, Delivery, str | None]] = []
        self.app = self._app(verifier)
        self.client: FlaskClient = self.app.test_client()

    def handle(self, event: object, delivery: Delivery) -> None:
        self.seen.append((event, delivery, current_trace()))
        if self.error:
            raise self.error

    def check(self) -> None:
        if self.ready:
            raise self.ready

    def fail(self) -> str:
        assert self.error is not None
        raise self.error

    def _app(self, verifier: PushVerifier | None) -> Flask:
        app = create_base_app("receiver", verifier, self.check)
        routes = Blueprint("routes", __name__)
        event_route(routes, RetrainRequested, self.handle)
        event_route(routes, RawDataUploaded, self.handle)
        task_route(routes, "reconcile", lambda: {"published": 2})
        routes.add_url_rule("/fail", view_func=self.fail)
        routes.add_url_rule("/rows", "rows", lambda: json_response(read_json(request, Rows, LIMIT)), methods=["POST"])
        routes.add_url_rule("/any", "any", lambda: json_response(read_json(request)), methods=["POST"])
        app.register_blueprint(routes)
        return app

    def push(self, data: bytes, attributes: dict[str, str], topic: str = "retrain-requested") -> int:
        message = {"data": base64.b64encode(data).decode(), "attributes": attributes, "messageId": "m1"}
        return self.client.post(f"/events/{topic}", json={"message": message}).status_code


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


EVENT = RetrainRequested(pipeline="p", reason="drift", requested_by="monitor")
MESSAGE = encode(EVENT, "monitor", TRACEPARENT)
ERRORS = [value for value in vars(exceptions).values() if isinstance(value, type) and issubclass(value, EsteiraError)]


def make(kind: type[EsteiraError]) -> EsteiraError:
    return BadInput([Problem("rows[0]", "is wrong")]) if kind is BadInput else kind("is wrong")


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_has_its_answer(receiver, kind):
    assert kind in STATUS
    receiver.error = make(kind)
    response = receiver.client.get("/fail")
    assert response.status_code == STATUS[kind]
    assert "is wrong" in response.json["error"]["message"]


def test_an_error_of_a_service_is_answered_as_its_parent(receiver):
    class TwoChampions(Conflict):
        """Two champions."""

    receiver.error = TwoChampions()
    response = receiver.client.get("/fail")
    assert response.status_code == 409
    assert response.json["error"] == {"code": "two_champions", "message": "Two champions.", "problems": []}


def test_unknown_errors_tell_the_log_and_nobody_else(receiver, caplog):
    receiver.error = RuntimeError("password=secret")
    response = receiver.client.get("/fail")
    assert response.status_code == 500
    assert b"secret" not in response.data
    assert caplog.records[-1].exc_info is not None


def test_errors_of_http_have_the_same_form(receiver):
    missing, wrong = receiver.client.get("/nowhere"), receiver.client.get("/rows")
    assert (missing.status_code, missing.json["error"]["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json["error"]["code"]) == (405, "method_not_allowed")
    assert "POST" in wrong.headers["Allow"]


def test_is_ready_when_its_check_says_so(receiver):
    assert receiver.client.get("/health/ready").status_code == 200
    receiver.ready = Unavailable("no release is loaded")
    response = receiver.client.get("/health/ready")
    assert (response.status_code, response.json["error"]["message"]) == (503, "no release is loaded")
    assert receiver.client.get("/health/live").status_code == 200


NASTY = {
    "empty": b"",
    "cut off": b'{"rows": [',
    "trailing": b'{"rows": []} x',
    "NaN": b"NaN",
    "Infinity": b'{"a": -Infinity}',
    "too big": b'{"a": 1e999}',
    "digits": b"9" * 5000,
    "arrays": b"[" * 100_000,
    "objects": b'{"a":' * 100_000,
    "UTF-8": b'"\xff"',
    "surrogate": b'"\\ud800"',
    "surrogate bytes": b'"\xed\xa0\x80"',
    "byte order mark": b"\xef\xbb\xbf{}",
    "NUL": b"\0",
    "single quotes": b"{'a': 1}",
}


@pytest.mark.parametrize("body", NASTY.values(), ids=NASTY.keys())
def test_nasty_bodies_are_bad_input(receiver, body):
    response = receiver.client.post("/any", data=body, content_type="application/json")
    assert (response.status_code, response.json["error"]["code"]) == (400, "bad_input")


def test_says_where_a_body_is_wrong(receiver):
    response = receiver.client.post("/rows", json={"rows": [{}, {"a": "x"}]})
    assert response.json["error"]["problems"] == [{"path": "rows[1][...]", "message": "Expected `int`, got `str`"}]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_other_content_types_are_refused(receiver, kind):
    assert receiver.client.post("/rows", data=b"{}", content_type=kind).status_code == 415


def test_compressed_bodies_are_refused(receiver):
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    assert receiver.client.post("/rows", data=b"{}", headers=headers).status_code == 415


def test_large_bodies_are_refused_with_and_without_their_length(receiver):
    body = json.dumps({"rows": [{"a": 1}] * LIMIT}).encode()
    assert receiver.client.post("/rows", data=body, content_type="application/json").status_code == 413
    chunked = receiver.client.post(
        "/rows",
        input_stream=BytesIO(body),
        content_type="application/json",
        environ_overrides={"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"},
    )
    assert chunked.status_code == 413


def test_an_event_reaches_its_handler_with_its_trace(receiver):
    assert receiver.push(MESSAGE.data, MESSAGE.attributes) == 204
    ((event, delivery, trace),) = receiver.seen
    assert event == EVENT
    assert (delivery.event_id, trace) == (MESSAGE.attributes["ce-id"], TRACEPARENT)
    assert current_trace() is None


def test_the_notification_of_the_bucket_is_known_by_its_message_id(receiver):
    attributes = {"bucketId": "b", "objectId": "raw/p/x.csv", "objectGeneration": "7"}
    assert receiver.push(b"{}", attributes, "raw-data-uploaded") == 204
    assert receiver.seen[0][0] == RawDataUploaded(bucket="b", object="raw/p/x.csv", generation=7)
    assert receiver.seen[0][1].event_id == "m1"


@pytest.mark.parametrize("kind", ERRORS)
def test_permanent_errors_are_acknowledged_and_others_are_not(receiver, kind, caplog):
    receiver.error = make(kind)
    permanent = issubclass(kind, exceptions.PermanentError)
    assert receiver.push(MESSAGE.data, MESSAGE.attributes) == (
        204 if permanent else 429 if kind is exceptions.Saturated else 503
    )
    if permanent:
        assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_unknown_errors_are_delivered_again_and_logged_with_their_stack(receiver, caplog):
    receiver.error = KeyError("x")
    assert receiver.push(MESSAGE.data, MESSAGE.attributes) == 503
    assert any(record.exc_info for record in caplog.records)


OTHER = encode(DatasetPrepared(pipeline="p", number=1, version="v", rows=1, ingestion_id=uuid4()), "etl")
REFUSED = {
    "not JSON": (b"x", {}),
    "nested": (b'{"evidence":' + b"[" * 100_000, {}),
    "bad UTF-8": (b'{"pipeline": "\xff", "reason": "", "requested_by": ""}', {}),
    "another event": (OTHER.data, OTHER.attributes),
    "fields missing": (b"{}", {}),
}


@pytest.mark.parametrize("data, attributes", REFUSED.values(), ids=REFUSED.keys())
def test_an_event_that_cannot_be_read_is_logged_and_acknowledged(receiver, caplog, data, attributes):
    assert receiver.push(data, attributes) == 204
    assert receiver.seen == []
    assert caplog.records[-1].levelno == logging.ERROR


@pytest.mark.parametrize("path", ["/events/retrain-requested", "/tasks/reconcile"])
def test_strangers_are_turned_away(path):
    receiver = Receiver(PushVerifier("https://etl.example", "push@project.iam.gserviceaccount.com"))
    response = receiver.client.post(path, json={})
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert receiver.client.get("/health/live").status_code == 200


def test_a_task_answers_with_its_counts(receiver):
    response = receiver.client.post("/tasks/reconcile")
    assert (response.status_code, response.json) == (200, {"published": 2})
