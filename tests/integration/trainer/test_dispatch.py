"""GitHub is told of each approved release until it has said that it knows."""

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, insert, text
from sqlalchemy.orm import Session

from esteira.tables import releases
from trainer.dispatch import API_VERSION, Dispatcher


class GitHub:
    """An HTTP server that keeps what it is told and answers what it should; None answers nothing at all."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, str], Any]] = []
        self.answers: list[int | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.told.append((self.path, dict(self.headers), body))
                status = outer.answers.pop(0) if outer.answers else 204
                if status is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Keeps quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def versions(self) -> list[str]:
        return [body["client_payload"]["version"] for _, _, body in self.told]


@pytest.fixture
def github() -> Iterator[GitHub]:
    found = GitHub()
    thread = threading.Thread(target=found.server.serve_forever, daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


@pytest.fixture
def dispatcher(engine: Engine, github: GitHub) -> Dispatcher:
    return Dispatcher(engine, "acme/belt", "secret", github.url)


def approve(engine: Engine, version: str, age: str = "0 minutes") -> None:
    row = {"pipeline": "shop", "version": version, "path": "p", "sha256": version * 64, "training_run_id": uuid4()}
    with Session(engine) as session, session.begin():
        session.execute(insert(releases).values(**row, dataset_number=1, metrics={}, gates=[], approved=True))
        age_it = text("UPDATE releases SET created_at = now() - CAST(:age AS interval) WHERE version = :version")
        session.execute(age_it, {"age": age, "version": version})


def make_due(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        session.execute(text("UPDATE releases SET dispatch_due_at = now() WHERE dispatch_due_at IS NOT NULL"))


def row(engine: Engine, version: str) -> Any:
    with Session(engine) as session:
        query = text("SELECT dispatched_at, dispatch_attempts FROM releases WHERE version = :version")
        return session.execute(query, {"version": version}).one()


def test_each_release_is_told_once_in_the_form_that_github_asks_for(
    engine: Engine, github: GitHub, dispatcher: Dispatcher
) -> None:
    approve(engine, "1", "2 minutes")
    approve(engine, "2", "1 minute")
    assert [dispatcher.send_waiting() for _ in range(2)] == [2, 0]
    assert github.versions() == ["1", "2"]
    path, headers, body = github.told[0]
    assert path == "/repos/acme/belt/dispatches"
    assert (headers["Authorization"], headers["X-GitHub-Api-Version"]) == ("Bearer secret", API_VERSION)
    assert body == {
        "event_type": "model-approved",
        "client_payload": {"pipeline": "shop", "version": "1", "sha256": "1" * 64},
    }


def test_a_lost_answer_is_sent_again_and_marked_once(engine: Engine, github: GitHub, dispatcher: Dispatcher) -> None:
    approve(engine, "1")
    github.answers = [None]
    assert dispatcher.send_waiting() == 0
    assert (row(engine, "1").dispatched_at, row(engine, "1").dispatch_attempts) == (None, 1)
    assert dispatcher.send_waiting() == 0  # not due yet
    make_due(engine)
    assert [dispatcher.send_waiting() for _ in range(2)] == [1, 0]
    assert github.versions() == ["1", "1"]
    assert row(engine, "1").dispatched_at is not None


def test_a_refusal_is_an_error_once_and_does_not_hold_up_the_others(
    engine: Engine, github: GitHub, dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    approve(engine, "1", "2 minutes")
    approve(engine, "2", "1 minute")
    github.answers = [404]
    with caplog.at_level(logging.INFO, "trainer.dispatch"):
        assert dispatcher.send_waiting() == 1
        assert row(engine, "2").dispatched_at is not None
        make_due(engine)
        github.answers = [404]
        dispatcher.send_waiting()
    levels = [record.levelname for record in caplog.records if record.message == "GitHub not told of a release"]
    assert levels == ["ERROR", "WARNING"]
    assert "secret" not in caplog.text


def test_github_away_is_waited_for(engine: Engine, dispatcher: Dispatcher, github: GitHub) -> None:
    approve(engine, "1")
    nowhere = Dispatcher(engine, "acme/belt", "secret", "http://127.0.0.1:9")
    assert nowhere.send_waiting() == 0
    make_due(engine)
    github.answers = [503]
    assert dispatcher.send_waiting() == 0
    make_due(engine)
    assert dispatcher.send_waiting() == 1
    assert github.versions() == ["1", "1"]


def test_releases_of_long_ago_are_history(engine: Engine, github: GitHub, dispatcher: Dispatcher) -> None:
    approve(engine, "1", "25 hours")
    assert dispatcher.send_waiting() == 0
    assert github.told == []


def test_two_services_at_once_tell_of_a_release_once(engine: Engine, github: GitHub, dispatcher: Dispatcher) -> None:
    approve(engine, "1")
    sent: list[int] = []
    threads = [threading.Thread(target=lambda: sent.append(dispatcher.send_waiting())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(sent), github.versions()) == (1, ["1"])
