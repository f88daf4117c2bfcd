from pathlib import Path

import pytest

from esteira.exceptions import PipelineInvalid, UnknownPipeline
from esteira.pipeline import find_pipeline, load_pipeline, load_pipelines

GOOD = """\
pipeline: shop
task: classification
entity: [id]
event_time: at
label: {name: late, sql: delay > 15}
columns:
  id: {type: integer}
  at: {type: timestamp}
  price: {type: number, min: 0}
  delay: {type: integer, nullable: true, known: after}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "pipeline.yaml").write_text(GOOD)
    (folder / "features.sql").write_text("SELECT price FROM raw")
    return folder


MISTAKES = [
    ("classification", "clasification", 2, "task: invalid enum value"),
    ("event_time: at", "event_time: at\ncolour: red", 5, "unknown key 'colour'; remove it"),
    ("event_time: at", "event_time: at\ntask: regression", 5, "'task' stands twice; remove one"),
    ("task: classification\n", "", 1, "lacks the key 'task'; add it"),
    ("[id]", "[ident]", 3, "'ident', which is no column; declare it"),
    ("[id]", "[id, id]", 3, "twice; remove one"),
    ("[id]", "[price]", 3, "a number and cannot identify a row; use another type"),
    ("[id]", "[delay]", 10, "must be known before and not nullable"),
    ("pipeline: shop", "pipeline: shops", 1, "its folder 'shop'; make them equal"),
    ("pipeline: shop", "pipeline: Shop", 1, "pipeline: expected"),
    ("event_time: at", "event_time: id", 4, "must name a timestamp column"),
    ("event_time: at", "training: {holdout: {by: day}}", 4, "a holdout by day needs an event_time"),
    ("event_time: at", "event_time: at\ngates:\n  confidence: 1.5", 6, "gates.confidence: expected"),
    ("event_time: at", "event_time: at\ngates:\n  min_gain_over_baseline: -1", 6, "min_gain_over_baseline: expected"),
    ("event_time: at", "event_time: at\nreference:\n  w:\n    file: w.csv", 7, "no file w.csv; add it"),
    ("event_time: at", "event_time: at\nreference:\n  w: {file: w.txt}", 6, "use a file of kind"),
    ("event_time: at", "event_time: at\nreference:\n  RAW: {file: w.csv}", 6, "rename it"),
    ("event_time: at", "event_time: at\nmonitoring: {psi_warning: 1}", 5, "psi_warning is above psi_alarm"),
    ("event_time: at", "event_time: at\ngates:\n\tslices: []", 6, "no tabs"),
    ("event_time: at", "event_time: at\ngates: &a {slices: [*a]}", 5, "alias of itself"),
    ("event_time: at", "event_time: at\n? [x]\n: 1", 5, "a key must be one word"),
    ("event_time: at", "event_time: !!python/name:os.system x", 4, "not YAML"),
    ("event_time: at", "event_time: 2013-99-99", 1, "not YAML: month"),
    ("id: {type: integer}", "id: {type: int}", 7, "columns.id.type: invalid enum value"),
    ("id: {type: integer}", "id: {type: integer, name: x}", 7, "unknown key 'name'"),
    ("id: {type: integer}", "id: {type: string, min: 1}", 7, "id.min is for numbers"),
    ("id: {type: integer}", "id: {type: integer, min: 1.0e+19}", 7, "id.min is above all integers of 64 bits"),
    ("id: {type: integer}", "id: {type: integer, max: -1.0e+19}", 7, "id.max is below all integers of 64 bits"),
    ("id: {type: integer}", "id: {type: string, values: []}", 7, "lists at least one"),
    ("id: {type: integer}", "id: {type: string, max_length: 0}", 7, "at least 1"),
    ("min: 0", "min: 5, max: 1", 9, "price.min is 5, above the maximum 1; mend the rule"),
    ("min: 0", "min: .nan", 9, "must be a finite number"),
    ("  price", "  _row: {type: integer}\n  price", 9, "names do not begin with _"),
    ("  price", "  ID: {type: integer}\n  price", 9, "in case only; rename it"),
]


@pytest.mark.parametrize("right, wrong, line, message", MISTAKES, ids=[m[3] for m in MISTAKES])
def test_a_mistake_is_named_by_file_and_line(folder: Path, right: str, wrong: str, line: int, message: str) -> None:
    path = folder / "pipeline.yaml"
    path.write_text(GOOD.replace(right, wrong, 1))
    with pytest.raises(PipelineInvalid) as raised:
        load_pipeline(folder)
    assert str(raised.value).startswith(f"{path}:{line}: ")
    assert message in str(raised.value)


@pytest.mark.parametrize("data", [b"", b"- a\n- b\n", b"text", b"a: \xff", GOOD.encode("utf-16"), b"a: 1\n--- \nb: 1"])
def test_a_file_that_is_no_mapping_in_utf_8_is_refused(folder: Path, data: bytes) -> None:
    (folder / "pipeline.yaml").write_bytes(data)
    with pytest.raises(PipelineInvalid, match=r"pipeline.yaml:\d+: "):
        load_pipeline(folder)


@pytest.mark.parametrize("name", ["pipeline.yaml", "features.sql"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(PipelineInvalid, match=f"{name}: missing; "):
        load_pipeline(folder)


def test_a_statement_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / "features.sql").write_bytes(b"SELECT '\xff' FROM raw")
    with pytest.raises(PipelineInvalid, match=r"features.sql:1: not text"):
        load_pipeline(folder)


def test_loads_all_pipelines_of_a_folder(folder: Path) -> None:
    pipelines = load_pipelines(folder.parent)
    assert [column.name for column in find_pipeline(pipelines, "shop").entity_columns] == ["id"]
    with pytest.raises(UnknownPipeline, match="known pipelines: shop"):
        find_pipeline(pipelines, "chop")
    with pytest.raises(PipelineInvalid, match="set PIPELINES_DIR"):
        load_pipelines(folder / "nothing")
