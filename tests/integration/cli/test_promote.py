"""`esteira promote` against a real predictor, and a trainer that remembers what it was told."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask, request

from esteira_cli.main import cli
from integration.cli.conftest import Predictor, refuse, serving
from releases import BuiltRelease

Promote = Callable[..., Result]


@pytest.fixture
def trainer() -> Iterator[str]:
    """Its address."""
    app, rows = Flask("trainer"), list[dict[str, Any]]()

    @app.get("/pipelines/shop/promotions")
    def history() -> dict[str, Any]:
        return {"promotions": rows}

    @app.post("/pipelines/shop/promotions")
    def promote() -> dict[str, Any]:
        wanted = request.get_json()
        row = {"generation": len(rows) + 1, "release_version": wanted["version"], "previous_version": None}
        rows.insert(0, {**row, "share": wanted["share"], "by": "ana", "reason": "", "created_at": ""})
        return row

    with serving(app) as url:
        yield url


@pytest.fixture
def promote(trainer: str, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Promote:
    monkeypatch.setenv("ESTEIRA_TRAINER_URL", trainer)
    monkeypatch.setenv("ESTEIRA_PREDICTOR_URL", predictor.url)
    monkeypatch.delenv("ESTEIRA_API_KEY", raising=False)
    return lambda version: CliRunner().invoke(cli, ["promote", "shop", version, "--wait"])


def test_a_predictor_that_takes_keys_is_shown_the_one_of_the_environment(
    promote: Promote, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor.gate = lambda environ: None if environ.get("HTTP_X_API_KEY") == "sesame" else refuse(environ)
    refused = promote("v1")
    assert (refused.exit_code, "send X-Api-Key; set ESTEIRA_API_KEY" in refused.stderr) == (1, True)
    monkeypatch.setenv("ESTEIRA_API_KEY", "sesame")
    found = promote("v1")
    assert (found.exit_code, found.stdout.splitlines()[-1]) == (0, "v1 serves")


def test_a_predictor_that_is_pinned_to_another_release_is_told_of(
    promote: Promote, predictor: Predictor, release: BuiltRelease
) -> None:
    predictor.serve(release, generation=0)
    found = promote("v2")
    assert (found.exit_code, "v2 was promoted, but the predictor serves v1" in found.stderr) == (1, True)
