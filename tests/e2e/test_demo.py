"""The demo as a user runs it: its report, its output, and what the stack holds in the end."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from e2e import evidence as held
from e2e.evidence import Evidence, reopened, requested_entities
from e2e.played import Demo, Plan, processes_of

pytestmark = pytest.mark.timeout(260)

PLAN = Plan(first=4, last=5, requests=600)
LONGEST_S = 220
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Demo, list[str]]]:
    """The demo, played to its end, and the processes that it left behind."""
    demo = Demo(tmp_path_factory.mktemp("demo") / "home", PLAN)
    try:
        demo.finish(LONGEST_S)
        yield demo, processes_of(demo.home)
    finally:
        demo.stop()


@pytest.fixture(scope="module")
def demo(played: tuple[Demo, list[str]]) -> Demo:
    """The demo that was played."""
    return played[0]


@pytest.fixture(scope="module")
def evidence(demo: Demo) -> Iterator[Evidence]:
    """What the demo's stack remembers, from the disk: it was stopped and started again."""
    with reopened(demo) as found:
        yield found


def test_every_month_is_played_in_full(demo: Demo) -> None:
    months = demo.report().months
    assert [(month.month, month.requests) for month in months] == [(number, PLAN.requests) for number in PLAN.months]
    assert [month.month for month in months if not month.reason.strip() or month.max_psi is None] == []
    assert all(month.max_psi is not None and month.max_psi > 0 for month in months)


def test_every_month_is_scored_within_bounds(demo: Demo) -> None:
    scores = [(month.auc_live, month.auc_frozen) for month in demo.report().months]
    assert [pair for pair in scores if None in pair] == []
    assert [pair for pair in scores if not all(0.55 < (score or 0) < 0.9 for score in pair)] == []


def test_the_frozen_champion_scores_as_the_live_one_while_it_serves(demo: Demo) -> None:
    months = demo.report().months
    first = months[0].model_version
    same = [month for month in months if month.model_version == first]
    assert same
    assert [month.auc_live for month in same] == pytest.approx([month.auc_frozen for month in same], abs=1e-12)
    assert all(month.auc_live != month.auc_frozen for month in months if month.model_version != first)


def test_a_retraining_changes_the_version_and_nothing_else_does(demo: Demo) -> None:
    months = demo.report().months
    pairs = pairwise(months)
    assert [(now.retrained, now.model_version != later.model_version) for now, later in pairs] == [
        (month.retrained, month.retrained) for month in months[:-1]
    ]
    assert demo.report().retrainings == sum(month.retrained for month in months)


def test_the_first_prediction_comes_soon(demo: Demo) -> None:
    report = demo.report()
    assert 0 < report.first_prediction_s <= 90
    assert report.first_prediction_s < report.total_s < LONGEST_S


def test_the_picture_is_drawn(demo: Demo) -> None:
    picture = demo.home / "demo-report.png"
    assert picture.read_bytes().startswith(PNG)
    assert picture.stat().st_size > 10_000


def test_the_output_has_one_line_for_each_month(demo: Demo) -> None:
    lines = [re.search(r"^ *\d+ s +month +(\d+) +(\d+) requests +model", line) for line in demo.said().splitlines()]
    assert [(int(line[1]), int(line[2])) for line in lines if line] == [(n, PLAN.requests) for n in PLAN.months]
    assert str(Path(demo.home) / "demo-report.json") in demo.said()
    assert "Traceback" not in demo.said()


def test_no_process_is_left_behind(played: tuple[Demo, list[str]]) -> None:
    assert played[1] == []


def test_every_uploaded_row_is_ingested_once(evidence: Evidence) -> None:
    held.check_rows_are_ingested_once(evidence)


def test_the_newest_dataset_holds_all_rows(evidence: Evidence) -> None:
    held.check_newest_dataset_holds_all_rows(evidence)


def test_each_labelled_row_has_its_outcome(evidence: Evidence) -> None:
    held.check_outcomes_are_the_labels(evidence)


def test_each_prediction_is_stored_once(evidence: Evidence) -> None:
    stored = Counter(entity for (entity,) in evidence.ask("SELECT entity FROM predictions"))
    assert stored == requested_entities(evidence.demo)
    assert stored.total() == PLAN.requests * len(PLAN.months) + 1
    held.check_histograms_count_each_prediction(evidence)


def test_no_dataset_is_trained_on_twice_and_the_pointer_follows_the_ledger(evidence: Evidence) -> None:
    held.check_ledger(evidence)
    held.check_report_tells_the_ledger(evidence)


def test_nothing_is_left_to_do(evidence: Evidence) -> None:
    assert evidence.left_to_do() == {}
