"""What is wrong is refused with its reason, kept, counted and shown; what is right beside it goes on."""

import io
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from e2e.played import ESTEIRA, FOLDER
from esteira.bucket import Bucket
from esteira_cli.stack import Options, Stack

pytestmark = pytest.mark.timeout(120)

PATIENCE_S = 60.0
HEADER = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,"
    "carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour"
)
ROW = "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"
GOOD = dict(zip(HEADER.split(","), ROW.split(","), strict=True))
BAD: tuple[tuple[str | dict[str, str], str], ...] = (
    ("2013,1,1", "line: expected 19 fields, got 3"),
    ({"flight": "many"}, "flight: expected an integer of 64 bits"),
    ({"month": "13"}, "month: above the maximum 12"),
    ({"origin": "LAX"}, "origin: none of EWR, JFK, LGA"),
    ({"dest": ""}, "dest: missing; expected string"),
    ({}, "duplicate key"),
)
"""A line, or what differs from the good row, and the reason for which it is refused."""
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\n" + bytes(range(256))

Ingestion = dict[str, Any]


def _line(changes: dict[str, str]) -> str:
    return ",".join((GOOD | changes).values())


def _csv(*lines: str, header: str = HEADER) -> bytes:
    return "\n".join([header, *lines, ""]).encode()


MIXED = _csv(
    _line({}),
    *(bad if isinstance(bad, str) else _line(bad) for bad, _ in BAD),
    *(_line({"flight": str(number)}) for number in (1, 2, 3)),
)
WHOLE = {
    "raw/flights/unknown-column.csv": (
        _csv(f"{_line({'flight': '77'})},blue", header=f"{HEADER},mood"),
        "the header has unknown column 'mood' (remove them, or declare them in pipeline.yaml)",
    ),
    "raw/flights/empty.csv": (b"", "the file is empty; upload a CSV file"),
    "raw/flights/picture.csv": (PNG, "no CSV file but a PNG image; upload a CSV file"),
    "raw/wrong_name/flights.csv": (_csv(_line({"flight": "78"})), "there is no pipeline 'wrong_name'; known pipelines"),
}
"""Files that are refused whole, and why."""


class Desk:
    """Where files are uploaded, and where one sees what became of them."""

    def __init__(self, stack: Stack, bucket: Bucket) -> None:
        self.bucket = bucket
        self._home = stack.home

    def status(self, *options: str) -> str:
        """What `esteira status` prints."""
        command = [ESTEIRA, "status", "--state-dir", str(self._home), *options]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def seen(self) -> dict[str, Ingestion]:
        """The finished ingestions in `esteira status --json`, by object."""
        shown = json.loads(self.status("--json"))
        listed = [row for pipeline in shown["pipelines"].values() for row in pipeline["ingestions"]]
        listed += [row for rows in shown["unknown_pipelines"].values() for row in rows]
        return {row["object"]: row for row in listed if row["status"] != "pending"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A stack that takes files in; all of the bad ones were uploaded to it, and are judged."""
    stack = Stack(tmp_path_factory.mktemp("bad") / "home", FOLDER.parent, Options(durable=False))
    try:
        stack.up(only={"etl", "trainer", "tick"})
        environment = stack.environment("etl")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", environment["STORAGE_EMULATOR_HOST"])
            desk = Desk(stack, Bucket(environment["BUCKET"], environment["GOOGLE_CLOUD_PROJECT"]))
            for name, data in {
                "raw/flights/mixed.csv": MIXED,
                **{name: data for name, (data, _) in WHOLE.items()},
            }.items():
                desk.bucket.upload_once(name, data, "application/octet-stream")
            _wait(lambda: {*desk.seen()} >= {"raw/flights/mixed.csv", *WHOLE}, desk.status)
            yield desk
    finally:
        stack.down()


@pytest.fixture(scope="module")
def seen(desk: Desk) -> dict[str, Ingestion]:
    """What `esteira status --json` says of each file."""
    return desk.seen()


def _wait(condition: Callable[[], bool], tell: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, tell()
        time.sleep(0.2)


def test_bad_rows_are_counted_by_reason_and_the_others_accepted(seen: dict[str, Ingestion]) -> None:
    mixed = seen["raw/flights/mixed.csv"]
    assert (mixed["status"], mixed["reason"]) == ("done", None)
    assert (mixed["rows"], mixed["accepted"], mixed["quarantined"]) == (4 + len(BAD), 4, len(BAD))
    assert mixed["reasons"] == {reason: 1 for _, reason in BAD}
    assert mixed["dataset_version"]


def test_bad_rows_are_kept_as_they_came_with_line_and_reason(desk: Desk, seen: dict[str, Ingestion]) -> None:
    kept = pq.read_table(io.BytesIO(desk.bucket.read(seen["raw/flights/mixed.csv"]["quarantine"]))).to_pylist()
    lines = MIXED.decode().split("\n")
    assert [row["line"] for row in kept] == list(range(3, 3 + len(BAD)))
    assert [row["text"] for row in kept] == [lines[row["line"] - 1] for row in kept]
    assert [len(row["reasons"]) for row in kept] == [1] * len(BAD)
    assert all(row["reasons"][0].startswith(reason) for row, (_, reason) in zip(kept, BAD, strict=True))
    assert kept[1]["reasons"] == ["flight: expected an integer of 64 bits, got 'many'"]
    assert kept[-1]["reasons"] == ["duplicate key '2013|1|1|UA|1545|EWR': the key of line 2"]


@pytest.mark.parametrize("name", list(WHOLE))
def test_a_file_is_refused_whole_with_the_reason_and_kept(desk: Desk, seen: dict[str, Ingestion], name: str) -> None:
    data, reason = WHOLE[name]
    refused = seen[name]
    assert refused["status"] == "failed"
    assert refused["reason"].startswith(reason)
    assert (refused["accepted"], refused["dataset_version"]) == (0, None)
    assert refused["quarantined"] == refused["rows"] == sum(1 for line in data.split(b"\n")[1:] if line.strip(b"\r"))
    assert desk.bucket.read(refused["quarantine"]) == data


def test_status_shows_refused_files_and_reasons_to_people(desk: Desk) -> None:
    shown = " ".join(desk.status().split())
    assert "wrong_name: there is no such pipeline" in shown
    assert [name for name in ("raw/flights/mixed.csv", *WHOLE) if name not in shown] == []


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for a stack whose pipelines are wrong."""
    folder = tmp_path_factory.mktemp("broken")
    yield folder
    Stack(folder / "home").down()


@pytest.mark.parametrize(
    ("file", "right", "wrong", "told"),
    [
        ("pipeline.yaml", "task: classification", "task: clasification", "task: invalid enum value 'clasification'"),
        ("features.sql", "    raw.distance,", "    raw.distanze,", 'not have a column named "distanze"'),
        ("features.sql", "    raw.carrier,", "    count(raw.carrier) AS n,", "an aggregate looks at other rows"),
    ],
)  # fmt: skip
def test_up_says_where_a_pipeline_is_wrong(broken: Path, file: str, right: str, wrong: str, told: str) -> None:
    shutil.copytree(FOLDER, broken / "pipelines" / "flights", dirs_exist_ok=True)
    path = broken / "pipelines" / "flights" / file
    text = path.read_text()
    path.write_text(text.replace(f"{right}\n", f"{wrong}\n", 1))
    line = 1 + text[: text.index(f"{right}\n")].count("\n")
    command = [ESTEIRA, "up", "--fast", "--state-dir", str(broken / "home"), "--only", "etl"]
    ran = subprocess.run(
        [*command, "--pipelines", str(broken / "pipelines")], capture_output=True, text=True, timeout=90, check=False
    )
    assert ran.returncode == 1, ran.stdout
    assert re.search(rf"{re.escape(str(path))}:{line}: .*{re.escape(told)}", ran.stderr), ran.stderr
    assert "Correct the cause and run `esteira up` again" in ran.stderr
