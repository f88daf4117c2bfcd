"""What a played stack holds in the end, read from Postgres and the bucket, and held against what was sent."""

import csv
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from e2e.played import Demo
from esteira.bucket import Bucket
from esteira.dataset import ENTITY, LABEL, decode_manifest
from esteira.release import Pointer, pointer_path
from esteira.schema import entity_key
from esteira_cli.stack import Stack
from esteira_cli.stack.loopback import get_json

PIPELINE = "flights"
FEATURES = f"features_{PIPELINE}"
HEARERS = (".etl", ".monitor")
REOPENED = {"etl", "monitor", "tick"}
SETTLE_S = 40.0
WAITING = """
    SELECT (SELECT count(*) FROM outbox WHERE published_at IS NULL),
           (SELECT count(*) FROM ingestions WHERE status = 'pending'),
           (SELECT count(*) FROM training_runs WHERE status IN ('requested', 'running'))
"""


@dataclass(frozen=True)
class Evidence:
    """The stack's memory after a demo."""

    demo: Demo
    database: str
    bucket: Bucket
    emulator: str | None
    """Where the Pub/Sub emulator tells of its subscriptions; Google's does not."""

    def ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with psycopg.connect(self.database) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def one(self, query: str, *values: object) -> Any:
        """The one value of a query."""
        ((value,),) = self.ask(query, *values)
        return value

    def left_to_do(self) -> dict[str, int]:
        """What waits in Postgres or on its way to the services that run, by kind; dead letters too."""
        names = ("outbox", "ingestions", "training_runs")
        found = dict(zip(names, self.ask(WAITING)[0], strict=True))
        return {name: count for name, count in (found | self._undelivered()).items() if count}

    def _undelivered(self) -> dict[str, int]:
        listed = get_json(f"{self.emulator}/status")["subscriptions"] if self.emulator else {}
        return {
            name.rpartition("/")[2]: int(counters["outstanding"])
            for name, counters in listed.items()
            if name.endswith((*HEARERS, ".dead"))
        }


@contextmanager
def reopened(demo: Demo) -> Iterator[Evidence]:
    """The stack of a demo that has ended, started again from the disk, once nothing is left to do in it."""
    stack = Stack(demo.home)
    try:
        stack.up(only=REOPENED)
        environment = stack.environment("etl")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", environment["STORAGE_EMULATOR_HOST"])
            bucket = Bucket(environment["BUCKET"], environment["GOOGLE_CLOUD_PROJECT"])
            database = environment["DATABASE_URL"].replace("+psycopg", "")
            found = Evidence(demo, database, bucket, stack.addresses()["pubsub-http"])
            settle(found)
            yield found
    finally:
        stack.down()


def settle(evidence: Evidence) -> None:
    """What the end of the demo cut short, such as a message in the outbox, is made up for by the timer's calls."""
    deadline = time.monotonic() + SETTLE_S
    while left := evidence.left_to_do():
        assert time.monotonic() < deadline, f"left undone: {left}\n{evidence.demo.tell()}"
        time.sleep(0.1)


def uploaded_keys(files: list[Path]) -> list[str]:
    """The entity keys of all rows of flights' files, as the contract spells them."""
    keys = []
    for path in files:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                day = (int(row["year"]), int(row["month"]), int(row["day"]))
                keys.append(entity_key([*day, row["carrier"], int(row["flight"]), row["origin"]]))
    return keys


def requested_entities(demo: Demo) -> Counter[str]:
    """The entities that the demo asked about, and how often."""
    source, plan = demo.source(), demo.plan
    names = [column.name for column in source.pipeline.entity_columns]
    rows = source.sample(plan.first, 1)
    for month in plan.months:
        rows += source.sample(month, plan.requests)
    return Counter(entity_key([row[name] for name in names]) for row in rows)


def check_rows_are_ingested_once(evidence: Evidence) -> None:
    """Every uploaded row is a row of features or of a quarantine, once."""
    uploaded = uploaded_keys(evidence.demo.uploaded())
    ingested = evidence.ask("SELECT object, status, rows, accepted, quarantined FROM ingestions ORDER BY object")
    assert [name for name, *_ in ingested] == sorted(f"raw/{PIPELINE}/{path.name}" for path in evidence.demo.uploaded())
    assert {status for _, status, *_ in ingested} == {"done"}
    quarantined = sum(row[4] for row in ingested)
    assert sum(row[3] for row in ingested) + quarantined == sum(row[2] for row in ingested) == len(uploaded)
    features = {key for (key,) in evidence.ask(f"SELECT {ENTITY} FROM {FEATURES}")}
    assert len(features) == evidence.one(f"SELECT count(*) FROM {FEATURES}") == len(uploaded) - quarantined
    assert features - set(uploaded) == set()


def check_newest_dataset_holds_all_rows(evidence: Evidence) -> None:
    """The newest manifest names whole parts, which have the rows of Postgres."""
    rows, path = evidence.ask("SELECT rows, manifest FROM datasets ORDER BY number DESC LIMIT 1")[0]
    parts = decode_manifest(evidence.bucket.read(path)).parts
    for part in parts:
        evidence.bucket.read(part.path, sha256=part.sha256)
    assert len(parts) == len(evidence.demo.uploaded())
    assert rows == sum(part.rows for part in parts) == evidence.one(f"SELECT count(*) FROM {FEATURES}")


def check_outcomes_are_the_labels(evidence: Evidence) -> None:
    """Each labelled row has its outcome, and no other row has one."""
    different = f"""
        SELECT f.{ENTITY}, f.{LABEL}, o.label FROM {FEATURES} f FULL JOIN outcomes o ON o.entity = f.{ENTITY}
        WHERE f.{LABEL} IS DISTINCT FROM o.label LIMIT 5
    """
    assert evidence.ask(different) == []
    assert evidence.one("SELECT count(*) FROM outcomes") > 0


def check_histograms_count_each_prediction(evidence: Evidence) -> None:
    """Predictions and their histograms are written together or not at all, whatever was delivered twice."""
    stored = dict(evidence.ask("SELECT model_version, count(*) FROM predictions GROUP BY 1"))
    counted = evidence.ask("SELECT model_version, feature, sum(count)::int FROM profiles GROUP BY 1, 2")
    assert {version for version, *_ in counted} == set(stored)
    assert [row for row in counted if row[2] != stored[row[0]]] == []


def check_ledger(evidence: Evidence) -> None:
    """No dataset is trained on twice, no release promoted twice, and the pointer is where the ledger is."""
    assert evidence.ask("SELECT dataset_number FROM training_runs GROUP BY 1 HAVING count(*) > 1") == []
    assert evidence.ask("SELECT dataset_number FROM releases GROUP BY 1 HAVING count(*) > 1") == []
    ledger = evidence.ask("SELECT generation, release_version, previous_version FROM promotions ORDER BY generation")
    versions = [version for _, version, _ in ledger]
    assert [generation for generation, *_ in ledger] == list(range(1, len(ledger) + 1))
    assert [previous for *_, previous in ledger] == [None, *versions[:-1]]
    assert len(set(versions)) == len(versions)
    assert versions == [version for (version,) in evidence.ask("SELECT version FROM releases ORDER BY created_at")]
    pointer = msgspec.json.decode(evidence.bucket.read(pointer_path(PIPELINE)), type=Pointer)
    assert (pointer.generation, pointer.version) == (len(ledger), versions[-1])


def check_report_tells_the_ledger(evidence: Evidence) -> None:
    """What the report says of champions is what the ledger says."""
    months = evidence.demo.report().months
    versions = [version for (version,) in evidence.ask("SELECT release_version FROM promotions ORDER BY generation")]
    serving = iter(versions)
    expected = [next(serving)]
    for month in months:
        expected.append(next(serving) if month.retrained else expected[-1])
    assert [month.model_version for month in months] == expected[:-1]
    assert expected[-1] == versions[-1]
