from pathlib import Path

import msgspec
import pytest

from esteira.events import PredictionsServed, decode
from esteira.exceptions import PipelineInvalid, Unavailable
from esteira.pipeline import load_pipeline
from esteira.release import LogRules
from predictor.app import create_app
from predictor.prediction_log import PredictionLog
from predictor.sampling import Sampler
from predictor.serving import Servings
from publishers import Mailbox, publish_spools
from releases import build_release, raw_rows, write_manifest, write_pipeline

PREDICT = "/pipelines/shop/predict"


class Shop:
    """A predictor over a release with rules of its own."""

    def __init__(self, folder: Path, rules: LogRules) -> None:
        built = build_release(folder)
        sha256 = write_manifest(built.folder, msgspec.structs.replace(built.release, prediction_log=rules))
        built.folder.rename(folder / sha256)
        servings = Servings(folder)
        servings.serve("shop", msgspec.structs.replace(built.pointer(), sha256=sha256), folder / sha256)
        self.mailbox = Mailbox()
        self.log = PredictionLog(self.mailbox, folder / "spool", Sampler(0.0))  # type: ignore[arg-type]
        self.client = create_app(servings, self.log, self.mailbox, None).test_client()  # type: ignore[arg-type]

    def logged(self) -> list[bool]:
        """Of each logged prediction, whether its raw row was kept."""
        events = [decode(PredictionsServed, m.data, m.attributes) for m in self.mailbox.messages]
        return [prediction.row is not None for event in events for prediction in event.predictions]


def test_a_strict_log_has_the_prediction_before_the_client(tmp_path: Path) -> None:
    shop = Shop(tmp_path, LogRules(delivery="strict"))
    assert shop.client.post(PREDICT, json={"rows": raw_rows(3)}).status_code == 200
    assert len(shop.logged()) == 3


def test_a_strict_log_that_cannot_publish_answers_503_and_no_prediction(tmp_path: Path) -> None:
    shop = Shop(tmp_path, LogRules(delivery="strict"))
    shop.mailbox.error = Unavailable("Pub/Sub is away")
    answer = shop.client.post(PREDICT, json={"rows": raw_rows(3)})
    assert (answer.status_code, "predictions" in answer.get_json(), answer.headers["Retry-After"]) == (503, False, "2")
    assert (shop.log.added, shop.log.lost) == (0, 0)


@pytest.mark.parametrize(("share", "kept"), [(None, 0), (0.0, 0), (1.0, 20)])
def test_the_pipelines_share_of_kept_rows_comes_before_the_services(
    tmp_path: Path, share: float | None, kept: int
) -> None:
    shop = Shop(tmp_path, LogRules(sample=share))
    shop.client.post(PREDICT, json={"rows": raw_rows(20)})
    publish_spools(shop.mailbox, tmp_path / "spool")
    assert sum(shop.logged()) == kept


@pytest.mark.parametrize("rules", ["{delivery: maybe}", "{sample: 2}", "{redact: [id]}"])
def test_rules_that_are_none_are_named_by_line(tmp_path: Path, rules: str) -> None:
    folder = write_pipeline(tmp_path).folder
    with (folder / "pipeline.yaml").open("a") as file:
        file.write(f"prediction_log: {rules}\n")
    with pytest.raises(PipelineInvalid, match=r"pipeline\.yaml:\d+"):
        load_pipeline(folder)
