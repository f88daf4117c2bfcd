"""The arms of a canary: the share is kept, an entity stays, and raising the share takes none back."""

import math
from itertools import pairwise

import pytest

from predictor.arms import takes_challenger

ENTITIES = [f"order-{number}" for number in range(20_000)]


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
