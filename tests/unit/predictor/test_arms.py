"""The arms of a canary: the share is kept, an entity stays, and raising the share takes none back."""

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from esteira.schema import Column
from predictor.arms import first_entity, takes_challenger

ENTITIES = [f"order-{number}" for number in range(20_000)]
RELEASE: Any = SimpleNamespace(
    columns=[
        Column(name="id", type="integer"),
        Column(name="shop", type="string"),
        Column(name="price", type="number"),
    ],
    entity=["shop", "id"],
)


def challenged(share: float, version: str = "7") -> set[str]:
    return {entity for entity in ENTITIES if takes_challenger(version, entity, share)}


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_the_challenger_gets_its_share_within_what_chance_allows(share: float) -> None:
    spread = math.sqrt(len(ENTITIES) * share * (1 - share))
    assert abs(len(challenged(share)) - len(ENTITIES) * share) < 4 * spread


def test_raising_the_share_takes_no_entity_back() -> None:
    growing = [challenged(share) for share in (0.05, 0.1, 0.3, 0.75)]
    assert all(smaller < larger for smaller, larger in pairwise(growing))


def test_an_entity_stays_with_its_arm_for_ever() -> None:
    """A literal: another process, another year, another version of Python."""
    found = [takes_challenger("7", f"order-{number}", 0.5) for number in range(8)]
    assert found == [False, True, False, False, False, True, True, True]


def test_another_canary_has_other_entities() -> None:
    both = challenged(0.1, "7") & challenged(0.1, "8")
    assert 0.005 < len(both) / len(ENTITIES) < 0.015


def test_the_entity_is_that_of_the_first_row_in_the_order_of_its_key() -> None:
    rows = [{"id": 3, "shop": "a|b", "price": "?"}, {"id": 4, "shop": "c"}]
    assert first_entity(RELEASE, rows) == "a\\|b|3"


@pytest.mark.parametrize("rows", [None, [], [None], [{"id": 1}], [{"id": "x", "shop": "a"}], ["text"]])
def test_rows_without_a_valid_key_have_no_entity(rows: list[Any] | None) -> None:
    assert first_entity(RELEASE, rows) is None
