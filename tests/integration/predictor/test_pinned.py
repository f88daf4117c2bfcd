from pathlib import Path

import pytest

from esteira.bucket import Bucket
from esteira.exceptions import SettingsInvalid, Unavailable
from esteira.settings import read_settings
from esteira_cli.stack import Stack
from following import Following
from predictor.settings import PredictorSettings
from releases import build_release

NEEDED = {"GOOGLE_CLOUD_PROJECT": "p", "BUCKET": "b", "PUSH_AUTHENTICATION": "none"}


def test_a_pinned_version_serves_whatever_the_pointer_says(bucket: Bucket, tmp_path: Path) -> None:
    old, new = build_release(tmp_path / "1", "v1"), build_release(tmp_path / "2", "v2", seed=2)
    for built in (old, new):
        built.upload(bucket)
    new.promote(bucket)
    following = Following(bucket, tmp_path, {"shop": "v1"})
    servings = following.servings
    following.refresh()
    servings.require_ready()
    assert servings.get("shop").runtime.release.version == "v1"
    new.promote(bucket, 2)
    following.refresh()
    assert servings.get("shop").runtime.release.version == "v1"


def test_a_pinned_version_that_is_not_there_is_named_and_looked_for_again(bucket: Bucket, tmp_path: Path) -> None:
    following = Following(bucket, tmp_path, {"shop": "v7"})
    servings = following.servings
    following.refresh()
    with pytest.raises(Unavailable, match="a release was refused"):
        servings.require_ready()
    assert servings.refusals()["shop"].version == "v7"
    assert "does not exist; let MODEL_RELEASE pin shop to" in servings.refusals()["shop"].reason
    build_release(tmp_path, "v7").upload(bucket)
    following.refresh()
    servings.require_ready()
    assert servings.get("shop").pointer.version == "v7"


@pytest.fixture
def bucket(infrastructure: Stack, bucket_name: str, pubsub_project: str) -> Bucket:
    return Bucket(bucket_name, pubsub_project)


def test_pins_are_read_from_the_environment() -> None:
    settings = read_settings(PredictorSettings, {**NEEDED, "MODEL_RELEASE": "shop/3, flights/12.2"})
    assert settings.pinned == {"shop": "3", "flights": "12.2"}
    assert read_settings(PredictorSettings, NEEDED).pinned == {}


@pytest.mark.parametrize("pin", ["shop", "shop/", "/3", "Shop/3", "shop/3/4"])
def test_a_pin_that_names_no_release_is_refused(pin: str) -> None:
    with pytest.raises(SettingsInvalid, match="MODEL_RELEASE"):
        read_settings(PredictorSettings, {**NEEDED, "MODEL_RELEASE": pin})
