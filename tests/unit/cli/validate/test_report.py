from pathlib import Path
from typing import Any

import msgspec

from esteira_cli.validate.checks import Finding
from esteira_cli.validate.plots import write_plot
from esteira_cli.validate.report import MARKER, MAX_BYTES, SHOWN, to_json, to_markdown
from esteira_cli.validate.results import PipelineResult, Validation


def replayed(differences: list[dict[str, Any]], scores: list[tuple[float, float | None]] | None = None) -> Finding:
    report = {"rows": 100, "tolerance": 0.0, "differences": differences, "scores": scores or []}
    return Finding(check="replay", verdict="stopped" if differences else "passed", summary="as it is", report=report)


def retried() -> Finding:
    difference = {"value": -0.02, "low": -0.03, "high": -0.01, "rows": 50}
    metrics = {"difference": -0.01, "difference_low": -0.02, "difference_high": 0.001}
    gate = {"name": "champion", "value": -0.02, "threshold": -0.01, "passed": False, "detail": "worse | than before"}
    report = {
        "rows": 90,
        "metrics": metrics,
        "gates": [gate],
        "slices": [{"feature": "town", "value": "Oslo", "difference": difference}],
        "reproduction": {"metric": "roc_auc", "recorded": 0.8, "measured": 0.8, "passed": True},
    }
    return Finding(check="retrial", verdict="stopped", summary="worse", report=report)


def validation(*findings: Finding, notes: tuple[str, ...] = ()) -> Validation:
    result = PipelineResult(pipeline="shop", version="7", findings=list(findings), notes=list(notes))
    return Validation(base="main", head="abc", results=[result])


def difference(position: int, expected: Any = 0.25, got: Any = 0.5) -> dict[str, Any]:
    return {"id": f"id-{position}", "path": "score", "expected": expected, "got": got}


def test_what_passes_says_so_first() -> None:
    lines = to_markdown(validation(replayed([])), {}).splitlines()
    assert lines[0] == MARKER
    assert lines[1].endswith("✅ passes")


def test_rows_that_differ_are_named_with_every_digit() -> None:
    text = to_markdown(validation(replayed([difference(1, 0.1, 0.1 + 0.2)])), {})
    assert "❌ is stopped" in text
    assert "| id-1 | score | `0.1` | `0.30000000000000004` |" in text


def test_only_the_first_rows_are_shown_and_the_rest_is_counted() -> None:
    text = to_markdown(validation(replayed([difference(position) for position in range(SHOWN + 7)])), {})
    assert f"id-{SHOWN - 1} " in text
    assert f"id-{SHOWN} " not in text
    assert "and 7 more differences" in text


def test_values_stand_as_code_and_cannot_break_the_table() -> None:
    text = to_markdown(validation(replayed([difference(1, "a|b`c\nd<img>", None)])), {})
    (row,) = [line for line in text.splitlines() if "id-1" in line]
    assert row == '| id-1 | score | `"a\\|b\'c\\nd<img>"` | `null` |'


def test_text_that_quotes_rows_is_no_markup_link_or_mention() -> None:
    quoted = "refused: ![x](http://evil.example/x) <img> @acme/owners **bold** | next\n# title"
    finding = Finding(check="replay", verdict="stopped", summary=quoted)
    lines = [line for line in to_markdown(validation(finding, notes=(quoted,)), {}).splitlines() if "refused" in line]
    assert len(lines) == 3
    for line in lines:
        assert r"\!\[x\](http:" in line
        assert all(text not in line for text in ("://", "@a", " <img", " **bold"))
        assert line.endswith(("title", "0.0 |"))


def test_gates_and_slices_are_shown_with_their_intervals_and_drawn() -> None:
    text = to_markdown(validation(retried()), {"shop": "shop.png"})
    assert "| champion | **failed** | -0.02 | -0.01 | worse \\| than before |" in text
    assert "| town=Oslo | -0.02000 | [-0.03000, -0.01000] | 50 |" in text
    assert 'x-axis ["all", "town=Oslo"]' in text
    assert "`shop.png`" in text


def test_a_check_that_crashed_shows_its_last_words() -> None:
    crashed = Finding(check="replay", verdict="stopped", summary="ended", error="SyntaxError: ```invalid```")
    text = to_markdown(validation(crashed), {})
    assert "SyntaxError: '''invalid'''" in text


def test_a_report_that_github_would_refuse_is_cut_off() -> None:
    many = [replayed([difference(position, "x" * 100, "y" * 100) for position in range(SHOWN)]) for _ in range(60)]
    text = to_markdown(validation(*many), {})
    assert len(text) < MAX_BYTES + 100
    assert "report.json" in text.splitlines()[-1]


def test_notes_do_not_stop_and_noted_differences_neither() -> None:
    noted = Finding(check="recheck", verdict="noted", summary="on purpose")
    found = validation(noted, notes=("nothing was trained",))
    assert found.passed
    assert "- nothing was trained" in to_markdown(found, {})
    assert msgspec.json.decode(to_json(found))["passed"] is True


def test_json_holds_every_figure() -> None:
    content = msgspec.json.decode(to_json(validation(retried())))
    assert content["passed"] is False
    assert content["results"][0]["findings"][0]["report"]["slices"][0]["difference"]["low"] == -0.03


def test_a_plot_is_drawn_where_there_is_something_to_draw(tmp_path: Path) -> None:
    (drawn,) = validation(replayed([], [(0.1, 0.2), (0.3, None)]), retried()).results
    assert write_plot(drawn, tmp_path) == "shop.png"
    assert (tmp_path / "shop.png").stat().st_size > 1000
    (empty,) = validation(replayed([])).results
    assert write_plot(empty, tmp_path) is None
