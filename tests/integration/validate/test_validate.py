"""`esteira validate` on work trees that differ from production in one thing each."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from esteira.bucket import Bucket
from esteira.release import Challenger, Pointer, pointer_path
from esteira.samples import Sample, sample_path
from esteira_cli.stack import Stack
from esteira_cli.stack.bucket import create as create_bucket

from .conftest import PIPELINE, SAMPLED, Tree

SCHEMA = "shared/src/esteira/schema.py"
SCORING = "shared/src/esteira/scoring.py"
PREDICTOR = "services/predictor/src/predictor/inference.py"
DECODING = "services/predictor/src/predictor/decoding.py"


def only_replayed(tree: Tree) -> tuple[int, Any, str]:
    """Validates without training: what is tested is serving."""
    (tree.folder / "pipelines" / PIPELINE / "pipeline.yaml").unlink()
    return tree.validate()


def findings(report: Any) -> dict[str, Any]:
    (result,) = report["results"]
    return {finding["check"]: finding for finding in result["findings"]}


def sampled(bucket: Bucket) -> Sample:
    return msgspec.json.decode(bucket.read(sample_path(PIPELINE, "1")), type=Sample)


def test_a_commit_that_changes_nothing_passes(tree: Tree) -> None:
    status, report, text = tree.validate()
    assert (status, report["passed"]) == (0, True), text
    replayed = findings(report)["replay"]
    assert set(findings(report)) == {"replay"}
    assert (replayed["report"]["source"], replayed["report"]["rows"]) == ("recorded", SAMPLED)
    assert Path(replayed["report"]["code"]).is_relative_to(tree.folder)
    assert (tree.reports / f"{PIPELINE}.png").read_bytes().startswith(b"\x89PNG")


def test_a_changed_default_is_stopped_and_the_rows_are_named(tree: Tree, production: Bucket) -> None:
    tree.change(
        SCHEMA, "            return None\n        raise Refused", "            return 0.0\n        raise Refused"
    )
    tree.change(SCHEMA, "if column.nullable:", 'if column.nullable and column.type == "number":')
    tree.change(
        DECODING, "values = list(row)", "values = [0.0 if (at, v) == (2, None) else v for at, v in enumerate(row)]"
    )
    status, report, text = only_replayed(tree)
    without_price = {str(p.id) for p in sampled(production).predictions if p.row["price"] is None}
    assert (status, report["passed"]) == (1, False), text
    differing = findings(report)["replay"]["report"]["differences"]
    assert {found["id"] for found in differing} == without_price
    assert {found["path"] for found in differing} >= {"features.price"}
    shown = [found for found in differing if found["path"] == "features.price"]
    assert all(found["expected"] is None and found["got"] == 0.0 for found in shown)
    assert any(name in text for name in without_price)
    assert "is stopped" in text


def test_a_reordered_feature_is_stopped_and_the_rows_are_named(tree: Tree, production: Bucket) -> None:
    tree.change(
        SCORING, "dtype=np.float64).reshape(len(rows), len(self.features))", "dtype=np.float64)[:, ::-1].copy()"
    )
    status, report, text = only_replayed(tree)
    assert status == 1, text
    replayed = findings(report)["replay"]["report"]
    assert "answers" in replayed["refused"]
    recorded = {str(p.id): p.score for p in sampled(production).predictions}
    scores = [found for found in replayed["differences"] if found["path"] == "score"]
    assert len(scores) > SAMPLED // 2
    assert all(found["expected"] == recorded[found["id"]] != found["got"] for found in scores)
    assert scores[0]["id"] in text


def test_answers_in_another_order_are_stopped(tree: Tree) -> None:
    tree.change(PREDICTOR, "served.model.score(matrix).tolist()", "served.model.score(matrix).tolist()[::-1]")
    status, report, text = only_replayed(tree)
    assert status == 1, text
    assert {d["path"] for d in findings(report)["replay"]["report"]["differences"]} == {"batch.score", "batch.label"}


def test_a_row_that_is_refused_now_is_named_with_the_reason(tree: Tree) -> None:
    tree.change(SCHEMA, "value < column.min", "value <= column.min + 50")
    tree.change(DECODING, "ge=column.min, le", "ge=(column.min or 0) + 50, le")
    status, report, _ = only_replayed(tree)
    differing = findings(report)["replay"]["report"]["differences"]
    assert status == 1
    assert differing[0]["path"] == "status"
    assert "rows[0].price" in differing[0]["got"]


def test_code_that_does_not_start_is_stopped_with_what_it_said(tree: Tree) -> None:
    tree.change(DECODING, "MAX_ROWS = 1000", "MAX_ROWS = one thousand")
    status, report, text = only_replayed(tree)
    assert status == 1
    assert "SyntaxError" in findings(report)["replay"]["error"]
    assert "SyntaxError" in text


def test_a_commit_that_only_refactors_passes(tree: Tree) -> None:
    tree.change(SCHEMA, "_unknown_keys", "_undeclared_keys")
    tree.change(SCORING, "_column(", "_values_of(")
    tree.change(PREDICTOR, "_make_ids(", "_draw_ids(")
    tree.change(DECODING, "_typed(", "_with_moments(")
    tree.change("services/trainer/src/trainer/fit.py", "_build_own(", "_build_from_file(")
    status, report, text = tree.validate()
    assert (status, report["passed"]) == (0, True), text
    found = findings(report)
    assert {name: finding["verdict"] for name, finding in found.items()} == {
        "replay": "passed",
        "recheck": "passed",
        "retrial": "passed",
    }
    assert found["retrial"]["report"]["metrics"]["difference"] == 0.0
    assert {one["value"] for one in found["retrial"]["report"]["slices"]} == {"Paris", "Rome", "Oslo"}
    assert "town=Oslo" in text


def test_a_trainer_that_makes_a_worse_model_is_stopped(tree: Tree) -> None:
    tree.change(
        "services/trainer/src/trainer/fit.py",
        "for feature in statement.features}",
        "for feature in statement.features[1:]}",
    )
    status, report, text = tree.validate()
    assert status == 1, text
    found = findings(report)
    assert (found["replay"]["verdict"], found["recheck"]["verdict"]) == ("passed", "passed")
    failed = {gate["name"] for gate in found["retrial"]["report"]["gates"] if not gate["passed"]}
    assert {"champion", "slice town"} <= failed


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("trainer/split.py", 'b"esteira-holdout|"', 'b"another-holdout|"'),
        ("trainer/data.py", "label: Array = table[LABEL].to_numpy()", "label: Array = table[LABEL].to_numpy()[::-1]"),
    ],
    ids=["split", "labels"],
)
def test_a_trainer_that_measures_on_other_rows_or_labels_is_stopped(tree: Tree, path: str, old: str, new: str) -> None:
    tree.change(f"services/trainer/src/{path}", old, new)
    status, report, text = tree.validate()
    assert status == 1, text
    assert not findings(report)["retrial"]["report"]["reproduction"]["passed"]


def test_etl_code_that_makes_other_rows_is_stopped_with_file_line_and_column(tree: Tree) -> None:
    tree.change("services/etl/src/etl/prepare.py", "CAST(f.{name} AS DOUBLE)", "round(CAST(f.{name} AS DOUBLE), 1)")
    status, report, text = tree.validate()
    assert status == 1, text
    rechecked = findings(report)["recheck"]
    (first, second) = rechecked["report"]["differences"]
    assert (rechecked["verdict"], first["object"], first["column"]) == ("stopped", f"raw/{PIPELINE}/a.csv.gz", "price")
    assert second["object"] == f"raw/{PIPELINE}/b.csv.gz"
    assert all(round(one["expected"], 1) == one["got"] for one in first["examples"])
    assert f"raw/{PIPELINE}/a.csv.gz" in text


def test_features_that_change_on_purpose_are_noted_and_their_model_is_tried(tree: Tree) -> None:
    tree.change(f"pipelines/{PIPELINE}/features.sql", "towns.size", "towns.size, raw.price * towns.size AS volume")
    status, report, text = tree.validate()
    assert status == 0, text
    found = findings(report)
    assert (found["recheck"]["verdict"], found["retrial"]["verdict"]) == ("noted", "passed")
    assert found["recheck"]["report"]["features_added"] == ["volume"]
    assert found["retrial"]["report"]["rows"] > 500


def test_a_pipeline_without_production_passes_with_a_note(tree: Tree) -> None:
    home = tree.folder / "pipelines" / PIPELINE
    other = home.rename(home.parent / "stall")
    (other / "pipeline.yaml").write_text(
        (other / "pipeline.yaml").read_text().replace("pipeline: shop", "pipeline: stall")
    )
    status, report, text = tree.validate("--pipeline", "stall")
    assert status == 0, text
    assert "nothing was promoted yet" in report["results"][0]["notes"][0]


def test_the_summary_and_the_comment_are_the_report(tree: Tree, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("what an earlier step said\n")
    tree.environment["GITHUB_STEP_SUMMARY"] = str(summary)
    status, _, text = tree.validate("--comment-file", str(tmp_path / "comment.md"))
    assert status == 0
    assert (tmp_path / "comment.md").read_text() == text
    assert summary.read_text() == f"what an earlier step said\n{text}"


def test_while_a_canary_runs_its_challenger_is_replayed_too(tree: Tree, production: Bucket) -> None:
    found = production.read_versioned(pointer_path(PIPELINE))
    assert found is not None
    pointer = msgspec.json.decode(found[0], type=Pointer)
    challenger = Challenger(version="2", path=pointer.path, sha256=pointer.sha256, share=0.1)
    canary = msgspec.json.encode(msgspec.structs.replace(pointer, challenger=challenger))
    generation = production.write_if(pointer_path(PIPELINE), canary, found[1])
    try:
        status, report, text = tree.validate()
    finally:
        production.write_if(pointer_path(PIPELINE), found[0], generation)
    assert status == 0, text
    (result,) = report["results"]
    assert [finding["check"] for finding in result["findings"]] == ["replay", "replay"]


def test_without_a_bucket_the_local_stack_is_production(tree: Tree, stack: Stack) -> None:
    environment = stack.environment("predictor")
    create_bucket(stack.addresses()["bucket"], environment["GOOGLE_CLOUD_PROJECT"], environment["BUCKET"])
    status, report, text = tree.validate("--state-dir", str(stack.home), bucket=None)
    assert status == 0, text
    assert "nothing was promoted yet" in report["results"][0]["notes"][0]


def test_without_a_bucket_and_a_stack_nothing_can_be_checked(tree: Tree, tmp_path: Path) -> None:
    status, report, text = tree.validate("--state-dir", str(tmp_path / "none"), bucket=None)
    assert (status, report) == (2, None)
    assert "there is no stack" in text


@pytest.mark.parametrize(
    "options", [("--pipeline", "nosuch"), ("--base", "nosuch"), ("--nonsense",)], ids=["pipeline", "base", "option"]
)
def test_what_cannot_be_checked_ends_with_status_2(tree: Tree, options: tuple[str, str]) -> None:
    status, report, _ = tree.validate(*options)
    assert (status, report) == (2, None)
