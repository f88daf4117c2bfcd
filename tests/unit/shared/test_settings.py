from pathlib import Path
from typing import Literal

import pytest

from esteira.exceptions import SettingsInvalid
from esteira.settings import DatabaseSettings, ServiceSettings, read_settings

COMPLETE = {
    "GOOGLE_CLOUD_PROJECT": "project",
    "BUCKET": "bucket",
    "PUSH_AUDIENCE": "https://etl",
    "PUSH_SERVICE_ACCOUNT": "push@project.iam.gserviceaccount.com",
}


class Everything(ServiceSettings, frozen=True, kw_only=True):
    seconds: float = 1.0
    eager: bool = False
    folder: Path = Path()
    mode: Literal["a", "b"] = "a"
    count: int
    """How many there are."""


def test_converts_each_variable_to_its_field():
    given = {**COMPLETE, "SECONDS": "2.5", "EAGER": "true", "FOLDER": "/data", "MODE": "b", "COUNT": "7"}
    settings = read_settings(Everything, given)
    assert (settings.seconds, settings.eager, settings.folder) == (2.5, True, Path("/data"))
    assert (settings.mode, settings.count, settings.port) == ("b", 7, 8080)


def test_tells_every_problem_at_once_with_the_explanation_of_the_field():
    with pytest.raises(SettingsInvalid) as raised:
        read_settings(Everything, {"PORT": "http", "MODE": "c", "PUSH_AUDIENCE": "x"})
    lines = str(raised.value).splitlines()
    assert [line.split()[0] for line in lines] == [
        "PORT",
        "GOOGLE_CLOUD_PROJECT",
        "BUCKET",
        "MODE",
        "COUNT",
        "PUSH_SERVICE_ACCOUNT",
    ]
    assert "COUNT is not set: How many there are." in lines
    assert lines[0].startswith("PORT is 'http': Expected `int`")


def test_an_empty_variable_counts_as_not_set():
    with pytest.raises(SettingsInvalid, match="BUCKET is not set"):
        read_settings(ServiceSettings, {**COMPLETE, "BUCKET": ""})


@pytest.mark.parametrize("missing", ["PUSH_AUDIENCE", "PUSH_SERVICE_ACCOUNT"])
def test_tokens_need_an_audience_and_a_service_account(missing):
    given = {name: value for name, value in COMPLETE.items() if name != missing}
    with pytest.raises(SettingsInvalid, match=missing):
        read_settings(ServiceSettings, given)
    assert read_settings(ServiceSettings, {**given, "PUSH_AUTHENTICATION": "none"}).push_authentication == "none"


def test_services_with_postgres_need_its_url():
    with pytest.raises(SettingsInvalid, match="DATABASE_URL is not set: The URL of Postgres"):
        read_settings(DatabaseSettings, {**COMPLETE, "PIPELINES_DIR": "pipelines"})
