"""The short form of fuzzing.py."""

from contract.dialects.fuzzing import fuzz, targets
from contract.dialects.site import Site


def test_every_target_takes_its_good_body(site: Site) -> None:
    for target in targets():
        status, answer = site.post(target.path, target.good, target.content_type)
        assert status in (200, 202), (target.path, answer)


def test_no_body_is_answered_5xx_and_all_answers_are_json(site: Site) -> None:
    found = fuzz(site, 2600, seed=7)
    assert found[400] > 1000
    assert found[200] > 50
