"""`esteira predict` against a real predictor over HTTP."""

import csv
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from esteira_cli.client import Client
from esteira_cli.main import cli
from integration.cli.conftest import refuse
from releases import BuiltRelease, raw_rows

COLUMNS = ("id", "at", "price", "town")
ANSWER = ["id", "score", "label", "prediction_id", "model_version"]


@pytest.fixture
def run(predictor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESTEIRA_PREDICTOR_URL", predictor.url)
    return lambda *arguments: CliRunner().invoke(cli, ["predict", *map(str, arguments)])


def as_csv(rows: Sequence[dict[str, Any]], names: Sequence[str] = COLUMNS) -> str:
    lines = [",".join("" if row.get(name) is None else str(row[name]) for name in names) for row in rows]
    return "\n".join([",".join(names), *lines]) + "\n"


def read_csv(path: Path | str) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def scores(path: Path | str) -> list[float]:
    return [float(row["score"]) for row in read_csv(path)]


def expected(predictor: Any, rows: list[dict[str, Any]]) -> list[float]:
    with Client(predictor.url) as client:
        return client.predict("shop", rows).scores


# -- one row ---------------------------------------------------------------------------------------------------------


def test_one_row_is_answered(run: Callable[..., Result], predictor: Any) -> None:
    row = raw_rows(2)[1]
    found = run("shop", "--row", json.dumps(row), "--json")
    assert found.exit_code == 0
    answer = json.loads(found.stdout)
    assert answer["score"] == expected(predictor, [row])[0]
    readable = run("shop", "--row", json.dumps(row)).stdout
    assert [line.split()[0] for line in readable.splitlines()] == ["score", "label", "id", "version"]
    assert str(answer["score"]) in readable


def test_a_row_that_is_refused_says_why(run: Callable[..., Result]) -> None:
    found = run("shop", "--row", '{"id": "x", "colour": 1}')
    assert found.exit_code == 3
    assert found.stderr.splitlines() == [
        "refused: colour: unknown column; remove it",
        "refused: id: expected an integer of 64 bits, got 'x'",
        "refused: at: missing; expected timestamp",
    ]


@pytest.mark.parametrize("arguments", [(), ("--row", "{"), ("--row", "[]"), ("--row", '"\udcff"')])
def test_it_wants_a_file_or_a_row(run: Callable[..., Result], arguments: tuple[str, ...]) -> None:
    assert run("shop", *arguments).exit_code == 2


# -- files -----------------------------------------------------------------------------------------------------------


def test_a_csv_file_is_answered_in_its_order(run: Callable[..., Result], predictor: Any, tmp_path: Path) -> None:
    rows = raw_rows(2501)
    (tmp_path / "rows.csv").write_text(as_csv(rows))
    predictor.gate = lambda _: time.sleep(random.uniform(0, 0.1))
    found = run("shop", "rows.csv", "--batch", 100, "--connections", 6)
    assert (found.exit_code, found.stderr) == (0, "")
    assert found.stdout == "2,501 answered by v1: rows.predictions.csv\n"
    answers = read_csv("rows.predictions.csv")
    assert list(answers[0]) == ANSWER
    assert [int(answer["id"]) for answer in answers] == list(range(2501))
    assert scores("rows.predictions.csv") == expected(predictor, rows)
    assert {answer["label"] for answer in answers} == {"true", "false"}
    assert sorted(path.name for path in tmp_path.glob("rows*")) == ["rows.csv", "rows.predictions.csv"]


def test_requests_are_in_flight_together(run: Callable[..., Result], predictor: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(as_csv(raw_rows(40)))
    together = threading.Barrier(4)

    def wait(environ: dict[str, Any]) -> None:
        if environ["REQUEST_METHOD"] == "POST":
            together.wait(20)

    predictor.gate = wait
    assert run("shop", "rows.csv", "--batch", 10, "--connections", 4).exit_code == 0


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.csv"])
def test_gzip_is_seen_by_its_bytes(run: Callable[..., Result], predictor: Any, tmp_path: Path, name: str) -> None:
    rows = raw_rows(700)
    (tmp_path / name).write_bytes(gzip.compress(as_csv(rows).encode()))
    assert run("shop", name, "--output", "out.csv").exit_code == 0
    assert scores("out.csv") == expected(predictor, rows)


def test_parquet_is_read_and_written(run: Callable[..., Result], predictor: Any, tmp_path: Path) -> None:
    rows = raw_rows(1700)
    frame = pd.DataFrame(rows)
    frame["at"] = pd.to_datetime(frame["at"])
    frame.to_parquet(tmp_path / "rows.parquet")
    assert run("shop", "rows.parquet", "--output", "out.parquet").exit_code == 0
    found = pq.read_table("out.parquet")
    assert found.column_names == ANSWER
    assert [str(kind) for kind in found.schema.types] == ["int64", "double", "bool", "string", "string"]
    assert found["id"].to_pylist() == list(range(1700))
    assert found["score"].to_pylist() == expected(predictor, rows)


def test_parquet_may_hold_decimals_floats_and_times_of_nanoseconds(
    run: Callable[..., Result], predictor: Any, tmp_path: Path
) -> None:
    rows = raw_rows(12)
    table = pa.table(
        {
            "id": pa.array([Decimal(row["id"]) for row in rows]),
            "at": pa.array([pd.Timestamp(row["at"]) for row in rows], pa.timestamp("ns", "Europe/Paris")),
            "price": pa.array([None if row["price"] is None else Decimal(str(row["price"])) for row in rows]),
            "town": pa.array([row["town"] for row in rows]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    assert run("shop", "rows.parquet", "--output", "out.csv").exit_code == 0
    assert run("shop", "rows.parquet", "--output", "out.parquet").exit_code == 0
    assert scores("out.csv") == pq.read_table("out.parquet")["score"].to_pylist() == expected(predictor, rows)
    assert pq.read_table("out.parquet")["id"].to_pylist() == list(range(12))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_without_rows_has_an_output_without_rows(
    run: Callable[..., Result], tmp_path: Path, ending: str
) -> None:
    if ending == "csv":
        (tmp_path / "rows.csv").write_text("id,at\n\n")
    else:
        pd.DataFrame({"id": [], "at": []}).to_parquet(tmp_path / "rows.parquet")
    found = run("shop", f"rows.{ending}", "--output", f"out.{ending}")
    assert (found.exit_code, found.stdout) == (0, f"0 answered: out.{ending}\n")
    assert len(read_csv("out.csv") if ending == "csv" else pq.read_table("out.parquet")) == 0


def test_texts_are_typed_as_the_pipeline_says(run: Callable[..., Result], predictor: Any, tmp_path: Path) -> None:
    text = (
        'town,id,price,at\r\n"Paris",1.0,+5.,2026-01-01\r\nNA,+2,NA,2026-01-01 10:00\r\n"Ro""me",3,1e1,2026-01-01\r\n'
    )
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert run("shop", "rows.csv", "--output", "out.csv").exit_code == 0
    towns, prices = ("Paris", None, 'Ro"me'), (5.0, None, 10.0)
    rows = [
        {"id": at, "at": "2026-01-01", "price": price, "town": town}
        for at, (price, town) in enumerate(zip(prices, towns, strict=True), 1)
    ]
    assert scores("out.csv") == expected(predictor, rows)
    assert [answer["id"] for answer in read_csv("out.csv")] == ["1.0", "+2", "3"]


def test_other_texts_may_mean_missing(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,at,price\n1,2026-01-01,?\n2,2026-01-01,NA\n")
    found = run("shop", "rows.csv", "--output", "out.csv", "--null", "?")
    assert found.exit_code == 3
    assert [row["line"] for row in read_csv("out.csv.refused.csv")] == ["3"]


def test_unicode_goes_through(run: Callable[..., Result], tmp_path: Path) -> None:
    rows = [
        {"id": at, "at": "2026-01-01", "town": town} for at, town in enumerate(["Zürich", "東京", "🚚", "a\u2028b"])
    ]
    (tmp_path / "rows ü.csv").write_text(as_csv(rows), "utf-8")
    assert run("shop", "rows ü.csv", "--output", "größe.csv").exit_code == 0
    assert len(read_csv("größe.csv")) == 4


def test_columns_that_the_pipeline_does_not_take_are_left_out_and_said_once(
    run: Callable[..., Result], predictor: Any, tmp_path: Path
) -> None:
    rows = [{**row, "delay": 3, "note": "x"} for row in raw_rows(30)]
    (tmp_path / "rows.csv").write_text(as_csv(rows, ["delay", "id", "note", "at", "town"]))
    found = run("shop", "rows.csv", "--batch", 10)
    assert found.exit_code == 0
    assert found.stderr.splitlines() == [
        "left out, for the pipeline does not take them: delay, note",
        "not in the file, and taken to be missing in every row: price",
    ]
    assert len(predictor.predictions()) == 3


# -- rows that are refused -------------------------------------------------------------------------------------------


def test_refused_rows_are_set_aside_with_line_and_reasons(
    run: Callable[..., Result], predictor: Any, tmp_path: Path
) -> None:
    rows = raw_rows(60)
    (tmp_path / "rows.csv").write_text(
        as_csv(rows[:30])
        + "x,2026-01-01,-1,Rome\n"
        + "".join(as_csv(rows[30:]).splitlines(keepends=True)[1:])
        + f"99,2026-01-01,,{'y' * 21}\n98,2026-01-01,nan,\n"
    )
    found = run("shop", "rows.csv", "--output", "out.csv", "--batch", 20)
    assert found.exit_code == 3
    assert found.stdout == "60 answered by v1: out.csv\n3 refused: out.csv.refused.csv\n"
    assert scores("out.csv") == expected(predictor, rows)
    assert read_csv("out.csv.refused.csv") == [
        {
            "line": "32",
            "reasons": "id: expected an integer of 64 bits, got 'x'; price: below the minimum 0, got -1.0",
            **dict(zip(COLUMNS, ["x", "2026-01-01", "-1", "Rome"], strict=True)),
        },
        {
            "line": "63",
            "reasons": f"town: longer than 20 characters, got {'y' * 21!r}",
            **dict(zip(COLUMNS, ["99", "2026-01-01", "", "y" * 21], strict=True)),
        },
        {
            "line": "64",
            "reasons": "price: expected a finite number, got 'nan'",
            **dict(zip(COLUMNS, ["98", "2026-01-01", "nan", ""], strict=True)),
        },
    ]


def test_what_was_refused_can_be_mended_and_sent_again(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,at,price\n1,2026-01-01,5\nx,2026-01-01,5\n")
    assert run("shop", "rows.csv", "--output", "out.csv").exit_code == 3
    mended = Path("out.csv.refused.csv").read_text().replace("x,2026", "2,2026")
    (tmp_path / "mended.csv").write_text(mended)
    assert run("shop", "mended.csv", "--output", "out2.csv").exit_code == 0
    assert [row["id"] for row in read_csv("out2.csv")] == ["2"]


def test_more_wrong_rows_than_one_answer_names(run: Callable[..., Result], predictor: Any, tmp_path: Path) -> None:
    rows = raw_rows(400)
    for row in rows[:350]:
        row["price"] = -1
    (tmp_path / "rows.csv").write_text(as_csv(rows))
    found = run("shop", "rows.csv", "--output", "out.csv", "--json")
    assert found.exit_code == 3
    assert json.loads(found.stdout) == {
        "output": "out.csv",
        "refused_to": "out.csv.refused.csv",
        "answered": 50,
        "refused": 350,
        "model_versions": {"v1": 50},
    }
    assert scores("out.csv") == expected(predictor, rows[350:])
    assert [int(row["line"]) for row in read_csv("out.csv.refused.csv")] == list(range(2, 352))


def test_a_row_that_no_answer_names_is_found(run: Callable[..., Result], predictor: Any, tmp_path: Path) -> None:
    rows = raw_rows(50)
    lines = as_csv(rows).splitlines()
    lines.insert(20, f"77,2026-01-01,,{'z' * (5 << 20)}")  # more than a request may hold
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    assert run("shop", "rows.csv", "--output", "out.csv").exit_code == 3
    assert scores("out.csv") == expected(predictor, rows)
    csv.field_size_limit(8 << 20)
    (refused,) = read_csv("out.csv.refused.csv")
    csv.field_size_limit(1 << 17)
    assert refused["line"] == "21"
    assert "answered 413" in refused["reasons"]


def test_broken_lines_cost_themselves_alone(run: Callable[..., Result], predictor: Any, tmp_path: Path) -> None:
    rows = raw_rows(40)
    lines = as_csv(rows).encode().splitlines()
    broken = [b'5,"2026,1,Rome', b"1,2", b"1,2026-01-01,1,Rome,more", b"1,2026-01-01,1,R\xffme", b"1,2026-01-01,1,\0"]
    for position, line in enumerate(broken):
        lines.insert(7 * (position + 1), line)
    (tmp_path / "rows.csv").write_bytes(b"\n".join(lines))
    found = run("shop", "rows.csv", "--output", "out.csv", "--batch", 9)
    assert found.exit_code == 3, found.output
    assert scores("out.csv") == expected(predictor, rows)
    refused = read_csv("out.csv.refused.csv")
    assert [(int(row["line"]), row["reasons"]) for row in refused] == [
        (8, "a quote is opened and not closed"),
        (15, "expected 4 fields, got 2"),
        (22, "expected 4 fields, got 5"),
        (29, "not valid UTF-8"),
        (36, "holds a NUL byte"),
    ]
    assert [row["id"].encode(errors="surrogateescape") for row in refused] == broken


def test_a_file_of_broken_lines_alone_is_refused_line_by_line(
    run: Callable[..., Result], predictor: Any, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("id,at\n1\n2\n")
    found = run("shop", "rows.csv", "--output", "out.csv")
    assert (found.exit_code, found.stdout) == (3, "0 answered: out.csv\n2 refused: out.csv.refused.csv\n")
    assert [row["line"] for row in read_csv("out.csv.refused.csv")] == ["2", "3"]
    assert predictor.predictions() == []


def test_a_run_without_refused_rows_removes_those_of_the_one_before(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,at\nx,2026-01-01\n")
    assert run("shop", "rows.csv", "--output", "out.csv").exit_code == 3
    (tmp_path / "rows.csv").write_text("id,at\n1,2026-01-01\n")
    assert run("shop", "rows.csv", "--output", "out.csv").exit_code == 0
    assert not Path("out.csv.refused.csv").exists()


def test_refused_rows_of_parquet_have_their_number(run: Callable[..., Result], tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": [1, 2], "at": pd.to_datetime(["2026-01-01", None]), "price": [float("inf"), 1]})
    frame.to_parquet(tmp_path / "rows.parquet")
    assert run("shop", "rows.parquet", "--output", "out.parquet").exit_code == 3
    assert read_csv("out.parquet.refused.csv") == [
        {"row": "1", "reasons": "price: is inf, which JSON cannot say", "id": "1", "at": "2026-01-01T00:00:00Z"}
        | {"price": "inf"},
        {"row": "2", "reasons": "at: missing; expected timestamp", "id": "2", "at": "", "price": "1.0"},
    ]
    assert pq.read_table("out.parquet").num_rows == 0


# -- what stops it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("rows.csv", b"", "the file is empty"),
        ("rows.csv", b"id,price\n1,2\n", "the header lacks at; every row needs a value there"),
        ("rows.csv", b"id;at\n1;2\n", "is the delimiter a comma?"),
        ("rows.csv", b"id,at,id\n1,2,3\n", "the header repeats id"),
        ("rows.csv", b'id,"at\n1,2\n', "no CSV file: line 1"),
        ("rows.csv.gz", gzip.compress(b"id,at\n" + random.Random(1).randbytes(9999))[:500], "damaged gzip"),
        ("rows.csv.gz", b"\x1f\x8bnothing", "damaged gzip"),
        ("rows.parquet", b"PAR1nothing", "damaged Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_leaves_no_output(
    run: Callable[..., Result], tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    found = run("shop", name, "--output", "out.csv")
    assert found.exit_code == 1
    assert told in found.stderr
    assert name in found.stderr
    assert list(tmp_path.glob("out*")) == []


def test_a_damage_late_in_the_file_leaves_no_output(run: Callable[..., Result], tmp_path: Path) -> None:
    packed = gzip.compress(as_csv(raw_rows(5000)).encode())
    (tmp_path / "rows.csv.gz").write_bytes(packed[:-2000])
    (tmp_path / "out.csv").write_text("of yesterday")
    assert run("shop", "rows.csv.gz", "--output", "out.csv").exit_code == 1
    assert [path.read_text() for path in tmp_path.glob("out*")] == ["of yesterday"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_predictor_that_goes_away_leaves_no_output(
    run: Callable[..., Result], predictor: Any, tmp_path: Path, ending: str
) -> None:
    (tmp_path / "rows.csv").write_text(as_csv([{"id": "x", "at": "2026-01-01"}, *raw_rows(500)]))
    predictor.gate = lambda _: ("500 Broken", {}, b"broken") if len(predictor.asked) > 4 else None
    found = run("shop", "rows.csv", "--output", f"out.{ending}", "--batch", 50)
    assert found.exit_code == 1
    assert "answered 500: broken" in found.stderr
    assert list(tmp_path.glob("out*")) == []


def test_an_unknown_pipeline_is_an_error(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,at\n")
    found = run("nothing", "rows.csv")
    assert found.exit_code == 1
    assert "answered 404" in found.stderr


def test_a_server_that_does_not_run_is_an_error(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,at\n")
    found = run("shop", "rows.csv", "--url", "http://127.0.0.1:9")
    assert found.exit_code == 1
    assert "no answer from the predictor at http://127.0.0.1:9" in found.stderr


def test_without_an_address_it_says_what_to_do(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ESTEIRA_PREDICTOR_URL")
    monkeypatch.delenv("ESTEIRA_HOME", raising=False)
    found = run("shop", "--row", "{}")
    assert found.exit_code == 1
    assert "`esteira up` starts one; --url" in found.stderr


@pytest.mark.parametrize("output", ["rows.csv", "out.txt", "nowhere/out.csv"])
def test_an_output_that_makes_no_sense_is_refused(run: Callable[..., Result], tmp_path: Path, output: str) -> None:
    (tmp_path / "rows.csv").write_text("id,at\n")
    assert run("shop", "rows.csv", "--output", output).exit_code == 2
    assert (tmp_path / "rows.csv").read_text() == "id,at\n"


def test_a_key_is_taken_from_the_environment(
    run: Callable[..., Result], predictor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESTEIRA_API_KEY", "sesame")
    run("shop", "--row", json.dumps(raw_rows(1)[0]))
    assert [environ.get("HTTP_X_API_KEY") for environ in predictor.asked] == ["sesame"] * 2


def test_who_is_not_let_in_is_told(run: Callable[..., Result], predictor: Any, tmp_path: Path) -> None:
    predictor.gate = lambda _: ("401 Unauthorized", {}, b"no key")
    found = run("shop", "--row", "{}")
    assert (found.exit_code, "answered 401: no key" in found.stderr) == (1, True)


def test_who_sends_no_key_is_told_where_one_comes_from(run: Callable[..., Result], predictor: Any) -> None:
    predictor.gate = refuse
    found = run("shop", "--row", "{}")
    assert (found.exit_code, "send X-Api-Key; set ESTEIRA_API_KEY" in found.stderr) == (1, True)


def test_a_regression_has_an_empty_label(
    run: Callable[..., Result], predictor: Any, regression: BuiltRelease, tmp_path: Path
) -> None:
    predictor.serve(regression, 2)
    (tmp_path / "rows.csv").write_text(as_csv(raw_rows(5)))
    assert run("shop", "rows.csv", "--output", "out.csv").exit_code == 0
    assert run("shop", "rows.csv", "--output", "out.parquet").exit_code == 0
    assert {row["label"] for row in read_csv("out.csv")} == {""}
    assert pq.read_table("out.parquet")["label"].to_pylist() == [None] * 5


# -- a run that ends early -------------------------------------------------------------------------------------------


class Slow:
    """A run of the command in a process of its own, that gets no answer after the third batch."""

    def __init__(self, predictor: Any, folder: Path) -> None:
        (folder / "rows.csv").write_text(as_csv(raw_rows(3000)))
        self.partial = folder / "out.csv.partial"
        self.go = threading.Event()
        predictor.gate = lambda environ: self._hold(predictor, environ)
        self.command = [sys.executable, "-m", "esteira_cli.main", "predict", "shop", "rows.csv", "--output", "out.csv"]
        self.options: dict[str, Any] = {"cwd": folder, "env": {**os.environ, "ESTEIRA_PREDICTOR_URL": predictor.url}}
        self.process = subprocess.Popen(self.command, **self.options, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 30
        while len(predictor.predictions()) < 5:
            assert time.monotonic() < deadline
            assert self.process.poll() is None
            time.sleep(0.02)

    def _hold(self, predictor: Any, environ: dict[str, Any]) -> None:
        if environ["REQUEST_METHOD"] == "POST" and len(predictor.predictions()) > 3:
            self.go.wait(60)

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=15)
        return self.process.returncode, said.decode()

    def again(self) -> int:
        self.go.set()
        return subprocess.run(self.command, **self.options, capture_output=True, check=False, timeout=60).returncode


@pytest.fixture
def slow(run: Callable[..., Result], predictor: Any, tmp_path: Path) -> Any:
    found = Slow(predictor, tmp_path)
    yield found
    found.go.set()
    found.process.kill()
    found.process.communicate()


def test_an_interrupted_run_leaves_nothing_and_does_not_wait(slow: Slow, tmp_path: Path) -> None:
    began = time.monotonic()
    status, said = slow.end(signal.SIGINT)
    assert (status, said) == (1, "Error: interrupted; nothing was written: the same command begins again\n")
    assert time.monotonic() - began < 5
    assert list(tmp_path.glob("out*")) == []


def test_a_killed_run_can_be_run_again(slow: Slow, tmp_path: Path) -> None:
    assert slow.partial.exists()
    assert slow.end(signal.SIGKILL)[0] == -signal.SIGKILL
    assert slow.again() == 0
    assert [path.name for path in tmp_path.glob("out*")] == ["out.csv"]
    assert [int(row["id"]) for row in read_csv(tmp_path / "out.csv")] == list(range(3000))


def test_two_runs_do_not_write_one_file(slow: Slow, run: Callable[..., Result]) -> None:
    found = run("shop", "rows.csv", "--output", "out.csv")
    assert found.exit_code == 1
    assert "is being written by another run" in found.stderr
    assert slow.partial.exists()
