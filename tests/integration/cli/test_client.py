"""The client against a real predictor over HTTP."""

import json
import socket
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from esteira.events import OutcomesObserved, decode
from esteira_cli.client import (
    AccessRefused,
    Client,
    PipelineNotServed,
    PredictorError,
    PredictorRefused,
    PredictorUnavailable,
    RequestTooLarge,
)
from releases import BuiltRelease, raw_rows


@pytest.fixture
def client(predictor: Any) -> Iterator[Client]:
    with Client(predictor.url, retries=2) as client:
        yield client


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_each_row_gets_score_label_id_and_version(client: Client, release: BuiltRelease) -> None:
    rows = raw_rows(3)
    found = client.predict("shop", rows)
    assert found.scores == pytest.approx(release.release.example_scores)
    assert found.labels == [score >= 0.5 for score in found.scores]
    assert len(set(found.ids)) == 3
    assert found.model_version == "v1"
    assert set(found[0]) == {"prediction_id", "score", "label", "model_version"}


def test_a_regression_has_no_labels(predictor: Any, client: Client, regression: BuiltRelease) -> None:
    predictor.serve(regression, 2)
    assert client.predict("shop", raw_rows(2)).labels == [None, None]


def test_no_rows_are_no_request(client: Client, predictor: Any) -> None:
    assert client.predict("shop", []) == []
    assert predictor.asked == []


def test_many_rows_are_cut_and_come_back_in_their_order(client: Client, predictor: Any) -> None:
    rows = raw_rows(2300)
    found = client.predict("shop", iter(rows))
    assert len(predictor.predictions()) == 3
    assert len(found) == 2300
    assert found.scores[1990:2010] == client.predict("shop", rows[1990:2010]).scores


def test_rows_are_cut_by_bytes_too(client: Client, predictor: Any) -> None:
    wide = [{**row, "town": "é" * 1_000_000} for row in raw_rows(5)]
    with pytest.raises(PredictorRefused, match="longer than 20 characters"):
        client.predict("shop", wide)
    assert int(predictor.asked[0]["CONTENT_LENGTH"]) <= 4 << 20


def test_a_problem_is_named_by_the_row_that_the_caller_gave(client: Client) -> None:
    rows = raw_rows(1500)
    rows[1203]["price"] = -1
    rows[1204] = {"id": 1, "colour": "red"}
    with pytest.raises(PredictorRefused, match=r"rows\[1203\]\.price: below the minimum 0, got -1") as caught:
        client.predict("shop", rows)
    assert sorted(caught.value.by_row()) == [1203, 1204]
    assert caught.value.by_row()[1204] == ["colour: unknown column; remove it", "at: missing; expected timestamp"]
    assert (caught.value.status, caught.value.code) == (400, "bad_input")


def test_what_json_cannot_say_is_named_before_anything_is_sent(client: Client, predictor: Any) -> None:
    rows = [{**row, "price": price} for row, price in zip(raw_rows(3), [1.0, float("inf"), b"x"], strict=True)]
    with pytest.raises(PredictorRefused) as caught:
        client.predict("shop", rows)
    assert caught.value.by_row() == {
        1: ["price: is inf, which JSON cannot say"],
        2: ["price: is of type bytes, which has no form in JSON"],
    }
    assert predictor.asked == []


def test_a_data_frame_is_scored_as_its_rows_are(client: Client) -> None:
    rows = raw_rows(30)
    frame = pd.DataFrame(rows)
    frame["at"] = pd.to_datetime(frame["at"]).dt.tz_convert("America/New_York")
    assert frame["price"].isna().any()
    assert client.predict("shop", frame).scores == client.predict("shop", rows).scores


def test_columns_of_a_data_frame_that_the_pipeline_does_not_take_are_left_out(client: Client) -> None:
    rows = raw_rows(3)
    scores = client.predict("shop", rows).scores
    with pytest.warns(UserWarning, match="left out what shop does not take: delay, colour"):
        assert client.predict("shop", pd.DataFrame(rows).assign(delay=1.0, colour="red")).scores == scores


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 1, 10),  # noqa: DTZ001  without a zone it is in UTC
        datetime(2026, 1, 1, 10, tzinfo=UTC),
        pd.Timestamp("2026-01-01T11:00:00+01:00"),
        np.datetime64("2026-01-01T10:00:00", "ns"),
        "2026-01-01T10:00:00Z",
        date(2026, 1, 1),
    ],
)
@pytest.mark.parametrize("price", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT])
def test_values_of_numpy_and_pandas_are_understood(client: Client, moment: Any, price: Any) -> None:
    row = {"id": np.int64(7), "at": moment, "price": price, "town": np.str_("Rome")}
    plain = {"id": 7, "at": "2026-01-01T10:00:00Z", "price": None, "town": "Rome"}
    assert client.predict("shop", [row]).scores == client.predict("shop", [plain]).scores


def test_features_are_scored(client: Client) -> None:
    (row,) = raw_rows(2)[1:]
    features = {"price": row["price"], "huge": np.nan, "town": row["town"], "size": None}
    assert len(client.predict_features("shop", [features])) == 1
    with pytest.raises(PredictorRefused, match=r"features\[0\]\.town: expected a string"):
        client.predict_features("shop", [{**features, "town": 3}])


def test_outcomes_are_published(client: Client, predictor: Any) -> None:
    outcomes = [{"entity": {"id": np.int64(at)}, "label": np.bool_(at % 2)} for at in range(1001)]
    assert client.feedback("shop", outcomes) == 1001
    events = [decode(OutcomesObserved, m.data, m.attributes) for m in predictor.publisher.messages]
    assert [len(event.outcomes) for event in events] == [1000, 1]
    assert [outcome.label for outcome in events[0].outcomes[:3]] == [0.0, 1.0, 0.0]
    with pytest.raises(PredictorRefused) as caught:
        client.feedback("shop", [*outcomes[:1000], {"entity": {"id": "x"}, "label": True}])
    assert caught.value.by_row() == {1000: ["entity.id: expected an integer of 64 bits, got 'x'"]}


def test_pipelines_are_described(client: Client) -> None:
    assert client.pipelines() == [{"pipeline": "shop", "version": "v1", "generation": 1}]
    described = client.pipeline("shop")
    assert described["entity"] == ["id"]
    assert [column["name"] for column in described["columns"]] == ["id", "at", "price", "town"]


@pytest.mark.parametrize("name", ["nothing", "a/b", "ü", "..", ""])
def test_an_unknown_pipeline_is_not_served(client: Client, name: str) -> None:
    with pytest.raises(PredictorError):
        client.predict(name, raw_rows(1))


def test_an_unknown_pipeline_is_named(client: Client) -> None:
    with pytest.raises(PipelineNotServed, match="nothing"):
        client.predict("nothing", raw_rows(1))


@pytest.mark.parametrize("status", ["429 Too Many Requests", "502 Bad Gateway", "503 Busy", "504 Gateway Timeout"])
def test_a_busy_service_is_asked_again_when_it_says(predictor: Any, client: Client, status: str) -> None:
    answers = [(status, {"Retry-After": "1"}, b""), None]
    predictor.gate = lambda _: answers.pop(0)
    began = time.monotonic()
    assert len(client.predict("shop", raw_rows(1))) == 1
    assert time.monotonic() - began >= 0.9
    assert answers == []


@pytest.mark.parametrize("status", ["429 Too Many Requests", "502 Bad Gateway", "503 Busy", "504 Gateway Timeout"])
def test_a_busy_service_is_asked_again_also_when_it_does_not_say(predictor: Any, client: Client, status: str) -> None:
    answers = [(status, {}, b""), None]
    predictor.gate = lambda _: answers.pop(0)
    assert len(client.predict("shop", raw_rows(1))) == 1


def test_the_last_answer_of_a_busy_service_is_told(predictor: Any, client: Client) -> None:
    body = json.dumps({"error": {"code": "unavailable", "message": "no model yet", "problems": []}}).encode()
    predictor.gate = lambda _: ("503 Busy", {"Retry-After": "0", "X-Request-Id": "r-1"}, body)
    with pytest.raises(PredictorUnavailable, match=r"answered 503: no model yet \(request r-1\)"):
        client.predict("shop", raw_rows(1))
    assert len(predictor.asked) == 3


@pytest.mark.parametrize(
    "status, kind",
    [
        ("401 Unauthorized", AccessRefused),
        ("403 Forbidden", AccessRefused),
        ("413 Too Large", RequestTooLarge),
        ("409 Conflict", PredictorRefused),
        ("500 Broken", PredictorUnavailable),
        ("302 Found", PredictorUnavailable),
    ],
)
def test_other_errors_are_not_repeated(predictor: Any, client: Client, status: str, kind: type[Exception]) -> None:
    predictor.gate = lambda _: (status, {"Location": "/elsewhere"}, b"<html>of some proxy</html>")
    with pytest.raises(kind, match="of some proxy") as caught:
        client.predict("shop", raw_rows(1))
    assert type(caught.value) is kind
    assert len(predictor.asked) == 1


def test_an_answer_that_is_no_json_is_an_error(predictor: Any, client: Client) -> None:
    predictor.gate = lambda _: ("200 OK", {}, b"<html>")
    with pytest.raises(PredictorUnavailable, match="not JSON"):
        client.pipelines()


def test_a_server_that_does_not_run_is_unavailable() -> None:
    port = free_port()
    told = rf"no answer from the predictor at http://127.0.0.1:{port}: .*refused"
    with Client(f"http://127.0.0.1:{port}", retries=1) as client, pytest.raises(PredictorUnavailable, match=told):
        client.predict("shop", raw_rows(1))


def test_a_server_that_is_silent_is_unavailable(predictor: Any) -> None:
    predictor.gate = lambda _: time.sleep(1)
    silent = Client(predictor.url, retries=0, timeout=0.2)
    with silent as client, pytest.raises(PredictorUnavailable, match="timed out"):
        client.predict("shop", raw_rows(1))


def test_key_and_token_are_sent(predictor: Any) -> None:
    tokens = iter(["one", "two"])
    with Client(predictor.url, api_key="k", token=lambda: next(tokens)) as client:
        client.pipelines()
        client.pipelines()
    sent = [(e.get("HTTP_X_API_KEY"), e.get("HTTP_AUTHORIZATION")) for e in predictor.asked]
    assert sent == [("k", "Bearer one"), ("k", "Bearer two")]


@pytest.mark.parametrize("token", [None, "t"])
def test_no_password_of_the_users_is_sent(
    predictor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    (tmp_path / "netrc").write_text("machine 127.1 login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("no_proxy", "127.1")
    with Client(predictor.url.replace("127.0.0.1", "127.1"), token=token) as client:
        client.pipelines()
    assert predictor.asked[0].get("HTTP_AUTHORIZATION") == (token and f"Bearer {token}")


@pytest.mark.parametrize("url", ["", "localhost:80", "ftp://x", "file:///etc/passwd"])
def test_an_address_is_one_of_http(url: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        Client(url)


@pytest.mark.parametrize("rows", [{"id": 1}, "rows", b"rows"])
def test_one_row_is_no_list_of_rows(client: Client, rows: Any) -> None:
    with pytest.raises(TypeError, match="expected a list of rows"):
        client.predict("shop", rows)


def test_a_data_frame_of_other_columns_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(ValueError, match="no column of the DataFrame is one of shop: it takes at, id, price, town"):
        client.predict("shop", pd.DataFrame({"Price": [1.0]}))
