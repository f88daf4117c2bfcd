"""What the predictor refuses to be told."""

import pytest

from esteira.exceptions import SettingsInvalid
from esteira.settings import read_settings
from predictor.settings import PredictorSettings

NEEDED = {"GOOGLE_CLOUD_PROJECT": "p", "BUCKET": "b", "PUSH_AUTHENTICATION": "none"}


@pytest.mark.parametrize("name", ["POINTER_POLL_SECONDS", "LOG_FLUSH_SECONDS"])
def test_a_pause_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(SettingsInvalid, match=name):
        read_settings(PredictorSettings, {**NEEDED, name: "0"})
    assert read_settings(PredictorSettings, {**NEEDED, name: "0.05"})
