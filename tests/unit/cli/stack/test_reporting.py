from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from esteira_cli.stack.reporting import component_table, duration, overview_tables
from esteira_cli.stack.stack import ComponentState

PROMOTION = {"release_version": "7", "created_at": "2026-01-02T03:04:05.6Z", "by": "ana", "reason": "drift"}
INGESTION = {"object": "raw/p/a.csv", "status": "done", "accepted": 9, "quarantined": 2, "reasons": {"no key": 2}}


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (119.0, "119 s"), (120.0, "2 min"), (7199.0, "119 min"), (18600.0, "5 h 10 min")],
)
def test_durations_read_as_people_say_them(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_process_that_is_down_has_no_pid() -> None:
    assert _shown(component_table([ComponentState("etl", "down", "http://x")])).split()[-5:] == [
        *("etl", "down", "http://x"),
        *("-", "-"),
    ]


def test_a_pipeline_shows_its_champion_and_why_rows_were_set_aside() -> None:
    shown = _overview({"champion": PROMOTION, "ingestions": [INGESTION]})
    assert "p: champion 7 since 2026-01-02 03:04:05, promoted by ana (drift)" in shown
    assert "2 no key" in shown


@pytest.mark.parametrize("champion", [None, {}])
def test_a_pipeline_without_facts_is_shown_all_the_same(champion: dict[str, Any] | None) -> None:
    assert "p: " in _overview({"champion": champion, "ingestions": [{}], "runs": [{}]})


@pytest.mark.parametrize(("shadow", "mode"), [(True, "shadow"), (False, "canary")])
def test_what_is_tried_out_stands_below_the_champion(shadow: bool, mode: str) -> None:
    shown = _overview({"champion": PROMOTION, "trial": {**PROMOTION, "share": 0.2, "shadow": shadow}})
    assert f"{mode} of 20%: 7 since 2026-01-02 03:04:05, promoted by ana (drift)" in shown


def test_without_an_answer_nothing_is_said_of_a_champion() -> None:
    assert "p: its champion is not known now" in _overview({"champion_known": False})


def test_dead_letters_and_silent_services_are_named() -> None:
    found = {"pipelines": {}, "dead_lettered": {"dataset-prepared.dead": 3}, "notes": ["etl does not answer"]}
    assert _shown(*overview_tables(found)).split("\n")[:2] == [
        "3 dead-lettered in dataset-prepared.dead",
        "etl does not answer",
    ]


def _overview(pipeline: dict[str, Any]) -> str:
    empty = {"champion": None, "champion_known": True, "trial": None, "ingestions": [], "runs": []}
    return _shown(*overview_tables({"pipelines": {"p": {**empty, **pipeline}}, "dead_lettered": {}, "notes": []}))


def _shown(*parts: object) -> str:
    console = Console(file=StringIO(), width=160)
    console.print(*parts, sep="\n")
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_files_for_a_pipeline_that_is_not_there_are_shown() -> None:
    refused = {"object": "raw/q/a.csv", "status": "failed", "reason": "there is no pipeline 'q'"}
    found = {"pipelines": {}, "unknown_pipelines": {"q": [refused]}, "dead_lettered": {}, "notes": []}
    shown = StringIO()
    Console(file=shown, width=200).print(*overview_tables(found), sep="\n")
    assert "q: there is no such pipeline" in shown.getvalue()
    assert "raw/q/a.csv" in shown.getvalue()
