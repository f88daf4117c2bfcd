from typing import Any

import pytest

from esteira_cli.stack.overview import _pipeline, dead_lettered

CHAMPION = {"generation": 3, "release_version": "7", "share": 1.0}
SHADOW = {"generation": 4, "release_version": "8", "share": 0.2, "shadow": True}
AFTERWARDS = {"generation": 5, "release_version": "7", "share": 1.0}


def test_dead_letters_are_counted_by_subscription() -> None:
    answer = {
        "subscriptions": {
            "projects/p/subscriptions/dataset-prepared.dead": {"outstanding": 2},
            "projects/p/subscriptions/model-promoted.dead": {"outstanding": 0},
            "projects/p/subscriptions/dataset-prepared.trainer": {"outstanding": 7},
        }
    }
    assert dead_lettered(answer) == {"dataset-prepared.dead": 2}


def test_without_an_emulator_there_is_nothing_to_count() -> None:
    assert dead_lettered(None) == {}


@pytest.mark.parametrize(
    ("promotions", "champion", "trial"),
    [
        ([], None, None),
        ([CHAMPION], CHAMPION, None),
        ([SHADOW, CHAMPION], CHAMPION, SHADOW),
        ([AFTERWARDS, SHADOW, CHAMPION], AFTERWARDS, None),
    ],
)
def test_the_newest_promotion_is_a_trial_where_its_share_is_not_the_whole(
    promotions: list[dict[str, Any]], champion: dict[str, Any] | None, trial: dict[str, Any] | None
) -> None:
    found = _found({"promotions": promotions})
    assert (found["champion"], found["trial"], found["champion_known"]) == (champion, trial, True)


def test_without_an_answer_the_champion_is_not_known() -> None:
    assert _found(None)["champion_known"] is False


def _found(promotions: Any) -> dict[str, Any]:
    return _pipeline("p", {("p", "promotions"): promotions, ("p", "ingestions"): None, ("p", "runs"): None})
