"""Three canaries on the whole stack: one does well while services die, one does harm, one is ended by a person.

The story is played once, the assertions look at what was seen on the way.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
import yaml
from mlflow import MlflowClient
from sqlalchemy import make_url

from e2e.other_pipelines import PIPELINES, Client, Row, Scenario, publish, serving_workers, tumours, wait_for
from esteira.bucket import Bucket
from esteira.events import RetrainRequested, encode
from esteira.release import Pointer, pointer_path
from esteira.schema import entity_key
from esteira_cli.stack import Options, Stack
from esteira_cli.stack.services import WORKERS as WORKER_COUNTS
from predictor.arms import takes_challenger

pytestmark = pytest.mark.timeout(240)

PIPELINE = "tumours"
PROJECT = BUCKET = "esteira-local"
SHARE = 0.4
ENOUGH = 40
"""Predictions of an arm; the last row of a canary brings the challenger so many, and nothing is concluded before."""
WORKERS = int(WORKER_COUNTS["predictor"])
AGAIN = 4
"""Rows of each arm that are asked about twice."""
LOGGED_S = 20.0
VICTIMS = ("predictor", "trainer", "monitor")
CHANGES: dict[str, Any] = {
    "promotion": "canary",
    "canary": {"share": SHARE, "min_predictions": ENOUGH},
    "monitoring": {"window": "month", "min_outcomes": 25},
    "retraining": {"automatic": False},
}


@dataclass
class Seen:
    """What was seen of the canary of one release."""

    version: str = ""
    begun: Row = field(default_factory=dict)
    """What the monitor said of it at first."""
    arms: dict[str, str] = field(default_factory=dict)
    """Entity → the release that answered for it."""
    moved: set[str] = field(default_factory=set)
    """Entities that another release answered for when they were asked about again."""
    after: str = ""
    """The champion afterwards."""


@dataclass
class Story:
    """All that the assertions look at."""

    first: str
    well: Seen
    harmful: Seen
    ended: Seen
    history: list[Row]
    pointer: Pointer
    alias: str
    missing: set[tuple[str, str]]
    """Entities and releases of answers that Postgres has not, long after they were given."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole stack with one pipeline, whose releases are tried out; Google's clients find it."""
    folder = tmp_path_factory.mktemp("canary")
    _write_pipeline(folder / "pipelines" / PIPELINE)
    stack = Stack(folder / "home", folder / "pipelines", Options(tick_seconds=1.0, durable=False))
    try:
        stack.up()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PUBSUB_EMULATOR_HOST", stack.addresses()["pubsub"])
            patch.setenv("STORAGE_EMULATOR_HOST", stack.addresses()["bucket"])
            yield stack
    finally:
        stack.down(wipe=True)


def _write_pipeline(folder: Path) -> None:
    folder.mkdir(parents=True)
    declared = yaml.safe_load((PIPELINES / PIPELINE / "pipeline.yaml").read_text())
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(declared | CHANGES, sort_keys=False))
    (folder / "features.sql").write_text((PIPELINES / PIPELINE / "features.sql").read_text())


class Player:
    """Plays the story through the bucket, HTTP, Pub/Sub and the command line."""

    def __init__(self, stack: Stack, scenario: Scenario) -> None:
        self._stack = stack
        self._scenario = scenario
        self._bucket = Bucket(BUCKET, PROJECT)
        self._client = Client(stack, self._bucket, PIPELINE)

    def play(self) -> Story:
        """All of it."""
        self._client.put("first.csv", self._scenario.first)
        (run,) = self._client.finished_runs("trainer")
        assert run["status"] == "promoted", run["verdict"]
        first = run["release_version"]
        well = self._try_out(1, self._rows("Braga", "Viseu"), kills=True)
        harmful = self._try_out(2, self._rows("Faro", "Tavira"), truthful=False)
        ended = self._end_by_hand(3, self._rows("Coimbra")[:20])
        return Story(
            first=first,
            well=well,
            harmful=harmful,
            ended=ended,
            history=json.loads(self._esteira("history", "--json")),
            pointer=msgspec.json.decode(self._bucket.read(pointer_path(PIPELINE)), type=Pointer),
            alias=self._alias(),
            missing=self._missing([*well.arms.items(), *harmful.arms.items(), *ended.arms.items()]),
        )

    def _rows(self, *laboratories: str) -> list[Row]:
        return [row | {"laboratory": name} for name in laboratories for row in self._scenario.alike]

    def _begin(self, number: int) -> Seen:
        """Asks for a training whose release has a canary; waits until every worker has it."""
        publish(PROJECT, encode(RetrainRequested(pipeline=PIPELINE, reason="try", requested_by="ann"), "ann"))
        run = self._client.finished_runs("ann", number)[0]
        assert run["release_version"], run["verdict"]
        return Seen(run["release_version"], begun=self._canary_of(run["release_version"]))

    def _canary_of(self, version: str) -> Row:
        def look() -> Row | None:
            found = self._client.get("monitor", "canary")
            return found if found and found["challenger"] == version else None

        return wait_for(f"the canary of {version}", look)

    def _try_out(self, number: int, rows: list[Row], kills: bool = False, truthful: bool = True) -> Seen:
        seen = self._begin(number)
        new = [row for row in rows if takes_challenger(seen.version, _entity(row), SHARE)][: ENOUGH - AGAIN]
        old = [row for row in rows if not takes_challenger(seen.version, _entity(row), SHARE)][:ENOUGH]
        self._tell_labels(seen.version, [*old, *new], truthful)
        if kills:
            for name in VICTIMS:
                self._stack.kill(name)
            self._stack.up()
        self._await_challenger(seen.version)
        self._ask(seen, [*new[:AGAIN], *old[:AGAIN], *old, *new])
        seen.after = self._ended(seen.version)
        return seen

    def _end_by_hand(self, number: int, rows: list[Row]) -> Seen:
        seen = self._begin(number)
        self._await_challenger(seen.version)
        self._ask(seen, rows)
        self._esteira("rollback", "--reason", "a person knows better")
        seen.after = self._ended(seen.version)
        return seen

    def _tell_labels(self, version: str, rows: list[Row], truthful: bool) -> None:
        """What is known after comes first here, so that the first verdict can rest on it; or is turned around where the
        challenger answers."""
        outcomes = [self._scenario.outcome(row) for row in rows]
        for outcome, row in zip(outcomes, rows, strict=True):
            if not truthful and takes_challenger(version, _entity(row), SHARE):
                outcome["label"] = not outcome["label"]
        assert self._client.post("feedback", {"outcomes": outcomes}) == {"accepted": len(rows)}

    def _await_challenger(self, version: str) -> None:
        """Until each worker that lives has said that it has it: which of them answers is for the kernel to choose."""
        wait_for(
            f"all workers to serve challenger {version}",
            lambda: len(serving_workers(self._stack, challenger=version)) >= WORKERS or None,
        )

    def _row_of_arm(self, version: str) -> Row:
        request = self._scenario.request(self._scenario.first[0])
        candidates = (request | {"laboratory": "probe", "sample": number} for number in range(1000))
        return next(row for row in candidates if takes_challenger(version, _entity(row), SHARE))

    def _ask(self, seen: Seen, rows: list[Row]) -> None:
        for row in rows:
            version = self._client.post("predict", {"rows": [self._scenario.request(row)]})["model_version"]
            if seen.arms.setdefault(_entity(row), version) != version:
                seen.moved.add(_entity(row))

    def _ended(self, version: str) -> str:
        """The champion, once the release challenges it no longer and the predictor answers with nobody else."""
        row = self._row_of_arm(version)

        def look() -> str | None:
            found = self._client.get("monitor", "canary")
            champion = str(found["champion"])
            answered = self._client.post("predict", {"rows": [row]})["model_version"]
            return champion if found["challenger"] is None and answered == champion else None

        return wait_for(f"the canary of {version} to end", look)

    def _esteira(self, command: str, *options: str) -> str:
        words = [sys.executable, "-m", "esteira_cli.main", command, PIPELINE, "--state-dir", str(self._stack.home)]
        return subprocess.run([*words, *options], check=True, capture_output=True, text=True, timeout=60).stdout

    def _alias(self) -> str:
        client = MlflowClient(self._stack.addresses()["mlflow"], self._stack.addresses()["mlflow"])
        champion = self._champion()

        def look() -> str | None:
            found = client.get_model_version_by_alias(PIPELINE, "champion").tags["release_version"]
            return found if found == champion else None

        return wait_for("MLflow's alias to follow", look)

    def _champion(self) -> str:
        return str(self._client.get("monitor", "canary")["champion"])

    def _missing(self, answered: list[tuple[str, str]]) -> set[tuple[str, str]]:
        url = make_url(self._stack.environment("monitor")["DATABASE_URL"]).set(drivername="postgresql")
        deadline = time.monotonic() + LOGGED_S
        with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
            while True:
                stored = set(connection.execute("SELECT entity, model_version FROM predictions"))
                if set(answered) <= stored or time.monotonic() > deadline:
                    return set(answered) - stored
                time.sleep(0.1)


def _entity(row: Row) -> str:
    return entity_key([row["laboratory"], row["sample"]])


@pytest.fixture(scope="module")
def story(stack: Stack) -> Story:
    return Player(stack, tumours()).play()


def test_a_release_that_passes_its_gates_begins_as_a_challenger(story: Story) -> None:
    for seen in (story.well, story.harmful, story.ended):
        assert (seen.begun["challenger"], seen.begun["share"]) == (seen.version, SHARE)
        assert seen.begun["champion"] != seen.version


def test_each_entity_is_answered_for_by_the_release_that_its_hash_names(story: Story) -> None:
    for seen, champion in ((story.well, story.first), (story.harmful, story.well.version)):
        expected = {e: seen.version if takes_challenger(seen.version, e, SHARE) else champion for e in seen.arms}
        assert seen.arms == expected
        assert seen.moved == set()
        assert set(seen.arms.values()) == {seen.version, champion}


def test_every_answer_of_both_arms_is_in_the_log(story: Story) -> None:
    assert story.missing == set()


def test_a_challenger_that_does_well_is_promoted_although_services_died(story: Story) -> None:
    assert story.well.after == story.well.version


def test_a_challenger_that_does_harm_is_rolled_back(story: Story) -> None:
    assert story.harmful.after == story.well.version
    (row,) = [row for row in story.history if row["generation"] == 5]
    assert "performance on live requests differs by -" in row["reason"]


def test_a_person_ends_a_canary(story: Story) -> None:
    assert story.ended.after == story.well.version
    assert story.history[0]["reason"] == "a person knows better"


def test_the_ledger_has_each_step_once(story: Story) -> None:
    well, harmful, ended = story.well.version, story.harmful.version, story.ended.version
    steps = [(row["generation"], row["release_version"], row["share"]) for row in reversed(story.history)]
    assert steps == [
        (1, story.first, 1),
        (2, well, SHARE),
        (3, well, 1),
        (4, harmful, SHARE),
        (5, well, 1),
        (6, ended, SHARE),
        (7, well, 1),
    ]
    assert [row["by"] for row in story.history[::-1]][1:6] == ["trainer", "monitor", "trainer", "monitor", "trainer"]


def test_pointer_and_alias_follow_the_ledger(story: Story) -> None:
    found = (story.pointer.version, story.pointer.generation, story.pointer.challenger)
    assert found == (story.well.version, 7, None)
    assert story.alias == story.well.version
