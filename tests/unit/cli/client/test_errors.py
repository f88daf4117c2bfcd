"""What each answer of a predictor means."""

import json

import pytest
import requests

from esteira.exceptions import EsteiraError, PermanentError, Problem, TransientError
from esteira.web import STATUS
from esteira_cli.client.errors import (
    AccessRefused,
    PipelineNotServed,
    PredictorError,
    PredictorRefused,
    PredictorUnavailable,
    error_of,
    tell,
)


def answer(status: int, code: str = "x", problems: list[tuple[str, str]] | None = None) -> requests.Response:
    found = requests.Response()
    found.status_code = status
    listed = [{"path": path, "message": message} for path, message in problems or []]
    found._content = json.dumps({"error": {"code": code, "message": "m", "problems": listed}}).encode()
    return found


@pytest.mark.parametrize("kind", STATUS, ids=lambda kind: kind.__name__)
def test_every_error_of_the_services_becomes_one_of_the_tree(kind: type[EsteiraError]) -> None:
    error = error_of("u", answer(STATUS[kind]))
    assert isinstance(error, PredictorError)
    assert isinstance(error, PermanentError) != isinstance(error, TransientError)
    assert isinstance(error, TransientError) == (STATUS[kind] >= 500 or STATUS[kind] == 429)


def test_the_kinds_are_told_apart() -> None:
    assert type(error_of("u", answer(400))) is PredictorRefused
    assert type(error_of("u", answer(403))) is AccessRefused
    assert type(error_of("u", answer(404))) is PipelineNotServed
    assert type(error_of("u", answer(429))) is PredictorUnavailable
    assert type(error_of("u", answer(500, "internal_error"))) is PredictorUnavailable
    assert type(error_of("u", answer(500, "permanent_error"))) is PredictorRefused


def test_paths_are_moved_by_the_rows_that_were_sent_before() -> None:
    paths = [("rows[3].a[0]", "p"), ("outcomes[4].entity.id", "q"), ("rows", "r"), ("features[5]", "s"), ("", "t")]
    error = error_of("u", answer(400, problems=paths), 1000)
    assert isinstance(error, PredictorRefused)
    assert [problem.path for problem in error.problems] == [
        "rows[1003].a[0]",
        "outcomes[1004].entity.id",
        "rows",
        "features[1005]",
        "",
    ]
    assert error.by_row() == {1003: ["a[0]: p"], 1004: ["entity.id: q"], 1005: ["s"]}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": 3}', b'{"error": {"problems": [3]}}', b"\xff"])
def test_any_body_is_read(body: bytes) -> None:
    found = requests.Response()
    found.status_code, found._content, found.reason = 400, body, "Bad Request"
    assert "answered 400: " in str(error_of("u", found))


def test_many_problems_are_told_in_one_line() -> None:
    told = tell([Problem(f"rows[{at}]", "bad") for at in range(25)])
    assert told.startswith("rows[0]: bad; rows[1]: bad; ")
    assert told.endswith("rows[19]: bad; and 5 more")
    assert tell([Problem("rows[0]", "bad")], 150) == "rows[0]: bad; and 150 more"
