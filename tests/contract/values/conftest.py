"""A predictor whose features show the values that requests were read as."""

import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Sequence
from typing import Any

import pytest

from contract.dialects.site import Site
from predictor.dialects.options import DialectOptions
from predictor.prediction_log import PredictionLog
from releases import build_release_of
from value_rules import GOOD, write_pipeline


class SeenLog(PredictionLog):
    """A log that shows at once what it was given last."""

    last: Sequence[dict[str, Any]] = ()

    def write(self, *given: Any, **more: Any) -> None:
        """Takes predictions, as the log does."""
        self.last = [one for _, records in given[2] for one in json.loads(b"[%b]" % records)]
        super().write(*given, **more)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Serves a release of the pipeline of `value_rules`, trained on good rows."""
    pipeline = write_pipeline(tmp_path_factory.mktemp("pipelines"))
    rows = [{**GOOD, "id": at, "amount": float(at % 100)} for at in range(400)]
    built = build_release_of(pipeline, rows, tmp_path_factory.mktemp("release"), sqlite=False)
    return Site(built, tmp_path_factory.mktemp("site"), DialectOptions(predict_route="/vertex/predict"), SeenLog)
