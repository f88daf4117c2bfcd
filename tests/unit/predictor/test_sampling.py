from pathlib import Path

import pytest

from esteira.events import PredictionsServed, decode
from predictor.app import create_app
from predictor.prediction_log import PredictionLog
from predictor.sampling import FIRST, Sampler
from predictor.serving import Servings
from publishers import Mailbox, publish_spools
from releases import build_release, raw_rows


def after_the_first(share: float) -> Sampler:
    sampler = Sampler(share)
    assert sampler.choose("v1", FIRST - 1) == list(range(FIRST - 1))
    assert 0 in sampler.choose("v1", 20)
    return sampler


def test_the_share_is_kept_once_the_first_are_taken() -> None:
    sampler = after_the_first(0.2)
    taken = sum(len(sampler.choose("v1", 100)) for _ in range(200))
    assert 3600 < taken < 4400


def test_rows_of_one_request_are_chosen_one_by_one() -> None:
    assert 100 < len(after_the_first(0.2).choose("v1", 1000)) < 300


def test_each_release_has_its_own_first() -> None:
    assert after_the_first(1e-9).choose("v2", 3) == [0, 1, 2]


def test_a_share_of_nothing_takes_not_even_the_first() -> None:
    assert Sampler(0).choose("v1", 100) == []


def test_a_share_of_one_takes_all() -> None:
    assert after_the_first(1).choose("v1", 200) == list(range(200))


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (1.0, 30)])
def test_sampled_predictions_carry_the_row_that_the_client_sent(tmp_path: Path, share: float, kept: int) -> None:
    built = build_release(tmp_path)
    built.folder.rename(tmp_path / built.sha256)
    servings = Servings(tmp_path)
    servings.serve("shop", built.pointer(), tmp_path / built.sha256)
    mailbox = Mailbox()
    log = PredictionLog(mailbox, tmp_path / "spool", Sampler(share))  # type: ignore[arg-type]
    client = create_app(servings, log, mailbox, None).test_client()  # type: ignore[arg-type]
    rows = raw_rows(30, seed=5)
    assert client.post("/pipelines/shop/predict", json={"rows": rows}).status_code == 200
    features = [{"price": 1.0, "huge": None, "town": "Rome", "size": 2.0}]
    assert client.post("/pipelines/shop/predict", json={"features": features}).status_code == 200
    publish_spools(mailbox, tmp_path / "spool")
    found = [p for m in mailbox.messages for p in decode(PredictionsServed, m.data, m.attributes).predictions]
    assert len(found) == 31
    assert [p.row for p in found if p.row is not None] == rows[:kept]
    assert found[-1].row is None
