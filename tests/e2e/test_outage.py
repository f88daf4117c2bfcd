"""All that the predictor writes to is down, and a worker dies meanwhile: it answers on, and its log is caught up."""

import os
import signal
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import make_url

from e2e.other_pipelines import PIPELINES, Client, Row, Scenario, serving_workers, tumours, wait_for
from esteira.bucket import Bucket
from esteira_cli.stack import Options, Stack
from esteira_cli.stack.services import WORKERS as WORKER_COUNTS

pytestmark = pytest.mark.timeout(240)

BUCKET = PROJECT = "esteira-local"
DOWN = ("pubsub", "postgres", "mlflow", "etl", "trainer", "monitor")
REQUESTS = 300
"""Of one row each, before the worker dies and after."""
WORKERS = int(WORKER_COUNTS["predictor"])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole stack with one pipeline; Google's clients find it."""
    folder = tmp_path_factory.mktemp("outage")
    (folder / "pipelines").mkdir()
    (folder / "pipelines" / "tumours").symlink_to(PIPELINES / "tumours")
    stack = Stack(folder / "home", folder / "pipelines", Options(tick_seconds=1.0))
    try:
        stack.up()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", stack.addresses()["bucket"])
            yield stack
    finally:
        stack.down(wipe=True)


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return tumours()


@pytest.fixture(scope="module")
def client(stack: Stack, scenario: Scenario) -> Client:
    """Of a pipeline with a champion, which every worker has."""
    client = Client(stack, Bucket(BUCKET, PROJECT), "tumours")
    client.put("first.csv", scenario.first)
    (run,) = client.finished_runs("trainer")
    assert run["status"] == "promoted", run["verdict"]
    _await_workers(stack)
    return client


def test_predictions_go_on_without_mlflow_postgres_and_pubsub_and_none_is_lost(
    stack: Stack, client: Client, scenario: Scenario
) -> None:
    for name in DOWN:
        stack.kill(name)
    requests = [scenario.request(row) for row in scenario.alike]
    answered = _ask(client, requests)
    victim = min(serving_workers(stack))
    os.kill(victim, signal.SIGKILL)
    wait_for("the worker to be dead", lambda: victim not in serving_workers(stack) or None)
    _await_workers(stack)
    answered |= _ask(client, requests)
    assert len(answered) == 2 * REQUESTS
    stack.up()
    wait_for("the log to be caught up", lambda: answered <= _logged(stack) or None)
    assert [line for line in stack.log("predictor").read_text().splitlines() if "predictions lost" in line] == []


def _ask(client: Client, rows: list[Row]) -> set[str]:
    """Ids of the predictions; each must be answered: `post` takes no other status."""
    asked = (client.post("predict", {"rows": [rows[number % len(rows)]]}) for number in range(REQUESTS))
    return {answer["predictions"][0]["prediction_id"] for answer in asked}


def _await_workers(stack: Stack) -> None:
    wait_for("each worker to serve", lambda: len(serving_workers(stack)) >= WORKERS or None)


def _logged(stack: Stack) -> set[str]:
    url = make_url(stack.environment("monitor")["DATABASE_URL"]).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        return {str(found) for (found,) in connection.execute("SELECT id FROM predictions")}
