"""Entity columns keep their types in Parquet, whichever file they came from."""

import io
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from esteira.schema import Column
from esteira_cli.predict import outputs
from esteira_cli.predict.outputs import CannotWrite, Draft, ParquetOutput, RefusedRows
from esteira_cli.predict.sending import Row

ANSWER = {"score": 0.5, "label": None, "prediction_id": "p", "model_version": "1"}
TEXTS = {"a": 1.0, "b": "2026-01-02T03:04:05+01:00", "c": "2026-01-02", "d": True, "e": "x", "f": 2}
VALUES = {**TEXTS, "b": datetime(2026, 1, 2, 2, 4, 5), "c": date(2026, 1, 2)}  # noqa: DTZ001  as Parquet has it
KINDS: dict[str, Any] = {
    "a": "integer",
    "b": "timestamp",
    "c": "date",
    "d": "boolean",
    "e": "string",
    "f": "number",
}
COLUMNS = [Column(name=name, type=kind) for name, kind in KINDS.items()]


@pytest.mark.parametrize("sent", [TEXTS, VALUES])
def test_entities_of_any_type_are_written(sent: dict[str, Any]) -> None:
    file = io.BytesIO()
    output = ParquetOutput(file, COLUMNS)
    output.write(Row(1, [], sent), [], ANSWER)
    output.close()
    output.close()
    assert not file.closed
    (found,) = pq.read_table(io.BytesIO(file.getvalue())).to_pylist()
    moment = datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)
    assert found == {"a": 1, "b": moment, "c": date(2026, 1, 2), "d": True, "e": "x", "f": 2.0, **ANSWER}


def test_rows_are_written_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "ROW_GROUP", 2)
    file = io.BytesIO()
    output = ParquetOutput(file, COLUMNS[:1])
    for number in range(5):
        output.write(Row(number, [], {"a": number}), [], ANSWER)
    output.close()
    found = pq.ParquetFile(io.BytesIO(file.getvalue()))
    assert [found.metadata.row_group(at).num_rows for at in range(found.num_row_groups)] == [2, 2, 1]
    assert found.read()["a"].to_pylist() == list(range(5))


def test_a_column_whose_type_changed_meanwhile_is_said() -> None:
    output = ParquetOutput(io.BytesIO(), COLUMNS[:1])
    with pytest.raises(CannotWrite, match=r"row 7: .* a expected an integer of 64 bits, got 'x'"):
        output.write(Row(7, [], {"a": "x"}), [], ANSWER)
    output.close()


def test_a_draft_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    (tmp_path / "out.csv.partial").write_text("left by a run that was killed, and longer")
    draft = Draft(path)
    draft.open().write(b"new")
    assert path.read_text() == "old"
    draft.commit()
    draft.discard()
    assert path.read_text() == "new"
    assert [found.name for found in tmp_path.iterdir()] == ["out.csv"]


def test_a_draft_that_is_given_up_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    draft = Draft(path)
    draft.open().write(b"new")
    with pytest.raises(CannotWrite, match="another run"):
        Draft(path).open()
    draft.discard()
    assert path.read_text() == "old"
    Draft(path).open().close()


def test_a_folder_that_takes_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="No such file or directory"):
        Draft(tmp_path / "nowhere" / "out.csv").open()


def test_refused_rows_keep_their_bytes(tmp_path: Path) -> None:
    refused = RefusedRows(tmp_path / "out.csv", "line", ["a"])
    refused.write(7, ["not valid UTF-8", "and more"], [b'R\xff"me'.decode(errors="surrogateescape")])
    refused.commit()
    assert (tmp_path / "out.csv.refused.csv").read_bytes() == (
        b'line,reasons,a\n7,not valid UTF-8; and more,"R\xff""me"\n'
    )
