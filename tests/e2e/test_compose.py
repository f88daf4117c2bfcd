"""The demo on containers, each of which is killed once: nothing is lost; nor is it by `down` and `up` again.

Where no Docker engine answers, or its images cannot be had, all of this is skipped, and the summary says so.

Google's Pub/Sub emulator keeps messages and topics in memory: what it has taken and not delivered dies with it, which
the real Pub/Sub never does to anyone. It is killed during a retraining, when one month's predictions are stored and
the next month's are not asked for, so that every other assertion holds as it does without that kill: what lies in
Postgres and the bucket (files, datasets, outcomes, trainings, promotions) is carried on by the timer's calls, without
the messages that told of it. Predictions on their way through it would be lost: no stored state knows of them.
"""

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from e2e import evidence as held
from e2e.composed import ComposedDemo, overridden, skip_without_containers
from e2e.evidence import Evidence, requested_entities, settle
from e2e.played import Plan
from esteira.bucket import Bucket
from esteira_cli.stack.loopback import get_json

pytestmark = pytest.mark.timeout(900)

PLAN = Plan(first=4, last=5, requests=700)
SEED = 20130501
ACTS = (
    ("history: checking rows", ("etl",)),
    ("training the first champion", ("pubsub", "trainer", "mlflow")),
    ("first prediction", ("predictor",)),
    ("month 4: storing predictions", ("monitor",)),
    ("month 4: labels arrive", ("bucket",)),
    ("month 4: judging", ("postgres",)),
)
"""A line that the demo says, and whose containers die after it."""
NO_PREDICTION_BEFORE = "month  4 "
"""While the demo has not said it, month 4's predictions are stored and month 5's are not asked for."""
VICTIMS = {"postgres", "pubsub", "bucket", "mlflow", "etl", "trainer", "predictor", "monitor"}
LAST_LINE = "everything stays up until Ctrl-C"
LONGEST_PAUSE_S = 0.3
PATIENCE_S = 900.0
LONGEST_END_S = 60.0
REPAIR_S = 60.0
CLIENTS = 8
"""So many requests the demo has under way: after a kill it sends them again, though some were answered and logged."""
FAST = {
    "etl": {"LEASE_SECONDS": "8"},
    "trainer": {"LEASE_SECONDS": "8"},
    "predictor": {"LOG_FLUSH_SECONDS": "0.2"},
}
"""The work of a dead container is free, and an answer is on its way to Pub/Sub, sooner than by default."""
ASKED_BEFORE = 300
UNFLUSHED = 100
"""More answers than that are not given in the time between two flushes."""
KEPT = ("ingestions", "datasets", "features_flights", "outcomes", "predictions", "training_runs", "releases")
LEDGER = "SELECT generation, release_version FROM promotions ORDER BY generation"


class Killer:
    """Kills containers of a running demo, and starts them again."""

    def __init__(self, demo: ComposedDemo) -> None:
        self.demo = demo
        self.killed: Counter[str] = Counter()
        self._random = random.Random(SEED)

    def play(self) -> None:
        """Goes through all acts, and on to the end of the demo."""
        for line, victims in ACTS:
            self._await_line(line)
            for name in self._random.sample(victims, len(victims)):
                time.sleep(self._random.uniform(0, LONGEST_PAUSE_S))  # when in the act it happens
                self.demo.stack.kill(name)
                if name == "pubsub":
                    assert NO_PREDICTION_BEFORE not in self.demo.said(), "killed too late for what is asserted below"
                self.demo.stack.start(name)
                self.killed[name] += 1
        self._await_line(LAST_LINE)

    def _await_line(self, line: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while line not in self.demo.said():
            assert self.demo.runs(), f"the demo ended before it said {line!r}\n{self.demo.tell()}"
            assert time.monotonic() < deadline, f"the demo never said {line!r}\n{self.demo.tell()}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    """A demo that was played to its end while its containers were killed; they are up."""
    home = tmp_path_factory.mktemp("compose") / "home"
    skip_without_containers(home)
    demo = ComposedDemo(home, PLAN, overridden(home.with_suffix(".yml"), FAST), stays=True)
    try:
        killer = Killer(demo)
        killer.play()
        yield killer
    finally:
        demo.stop()


@pytest.fixture(scope="module")
def evidence(killer: Killer) -> Evidence:
    """What the containers remember once the services had the time to finish."""
    demo = killer.demo
    environment = demo.stack.environment("etl")
    bucket = Bucket(environment["BUCKET"], environment["GOOGLE_CLOUD_PROJECT"], environment["STORAGE_EMULATOR_HOST"])
    found = Evidence(demo, environment["DATABASE_URL"].replace("+psycopg", ""), bucket, emulator=None)
    settle(found)
    return found


def _eventually(check: Callable[[Evidence], None], evidence: Evidence) -> None:
    """What a lost message would have told of is found by the timer's calls: it may take some of them."""
    deadline = time.monotonic() + REPAIR_S
    while True:
        try:
            return check(evidence)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def test_every_container_with_data_or_work_was_killed(killer: Killer) -> None:
    assert set(killer.killed) == VICTIMS


def test_the_demo_plays_all_months(killer: Killer) -> None:
    months = killer.demo.report().months
    assert [(month.month, month.requests) for month in months] == [(number, PLAN.requests) for number in PLAN.months]
    assert [month.month for month in months if None in (month.auc_live, month.auc_frozen, month.max_psi)] == []
    assert "Traceback" not in killer.demo.said(), killer.demo.said()


def test_every_uploaded_row_is_ingested_once(evidence: Evidence) -> None:
    held.check_rows_are_ingested_once(evidence)
    held.check_newest_dataset_holds_all_rows(evidence)


def test_outcomes_are_made_up_for_whose_message_was_lost(evidence: Evidence) -> None:
    _eventually(held.check_outcomes_are_the_labels, evidence)


def test_each_prediction_is_stored_once_but_those_the_killed_predictor_had_not_flushed(
    killer: Killer, evidence: Evidence
) -> None:
    stored = Counter(entity for (entity,) in evidence.ask("SELECT entity FROM predictions"))
    sent = requested_entities(evidence.demo)
    kills = killer.killed["predictor"]
    assert (sent - stored).total() <= UNFLUSHED * kills
    assert (stored - sent).total() <= CLIENTS * kills
    held.check_histograms_count_each_prediction(evidence)


def test_no_dataset_is_trained_on_twice_and_the_pointer_follows_the_ledger(evidence: Evidence) -> None:
    held.check_ledger(evidence)
    held.check_report_tells_the_ledger(evidence)


def test_down_and_up_again_loses_nothing(killer: Killer, evidence: Evidence) -> None:
    before, objects = _rows(evidence), _objects(evidence)
    killer.demo.interrupt()
    killer.demo.finish(LONGEST_END_S)
    assert killer.demo.stack.state()[0].state == "down"
    killer.demo.stack.up()
    settle(evidence)
    assert _rows(evidence) == before
    assert objects - _objects(evidence) == set()
    served = get_json(f"{killer.demo.stack.addresses()['predictor']}/pipelines/flights")
    assert served["champion"]["version"] == evidence.ask(LEDGER)[-1][1]


def test_what_was_answered_before_an_orderly_down_is_kept(killer: Killer, evidence: Evidence) -> None:
    stack = killer.demo.stack
    rows = [row for (row,) in evidence.ask("SELECT row FROM predictions WHERE row IS NOT NULL LIMIT 100")]
    address = f"{stack.addresses()['predictor']}/pipelines/flights/predict"
    answered: list[str] = []
    client = threading.Thread(target=_ask_until_it_is_gone, args=(address, rows, answered))
    client.start()
    deadline = time.monotonic() + PATIENCE_S
    while len(answered) < ASKED_BEFORE and time.monotonic() < deadline:
        time.sleep(0.05)
    stack.down()
    client.join(LONGEST_END_S)
    stack.up()
    settle(evidence)
    assert len(answered) >= ASKED_BEFORE
    stored = {str(found) for (found,) in evidence.ask("SELECT id FROM predictions")}
    assert set(answered) - stored == set()


def _ask_until_it_is_gone(address: str, rows: list[dict[str, Any]], answered: list[str]) -> None:
    with requests.Session() as session:
        session.trust_env = False
        for row in itertools.cycle(rows):
            try:
                answer = session.post(address, json={"rows": [row]}, timeout=10)
            except requests.RequestException:
                return
            if answer.status_code == 200:
                answered.append(answer.json()["predictions"][0]["prediction_id"])


def _rows(evidence: Evidence) -> dict[str, object]:
    """What Postgres has to keep."""
    return {
        **{table: evidence.one(f"SELECT count(*) FROM {table}") for table in KEPT},
        "promotions": evidence.ask(LEDGER),
    }


def _objects(evidence: Evidence) -> set[tuple[str, int]]:
    """What the bucket has to keep, with sizes; the monitor writes samples anew as it comes by."""
    return {(found.path, 0 if found.path.startswith("samples/") else found.size) for found in evidence.bucket.list("")}
