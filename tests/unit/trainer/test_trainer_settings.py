import pytest

from esteira.database import make_engine
from esteira.exceptions import SettingsInvalid
from esteira.settings import read_settings
from trainer.main import NO_TOKEN, Settings, make_dispatcher

ENVIRON = {
    "GOOGLE_CLOUD_PROJECT": "acme",
    "BUCKET": "b",
    "DATABASE_URL": "postgresql://u@h/d",
    "PIPELINES_DIR": "/pipelines",
    "MLFLOW_TRACKING_URI": "http://mlflow",
    "PUSH_AUTHENTICATION": "none",
}


def test_cloud_run_needs_the_job_that_it_starts() -> None:
    with pytest.raises(SettingsInvalid, match="TRAINING_JOB is not set; LAUNCHER=cloud-run needs projects/<project>/"):
        read_settings(Settings, {**ENVIRON, "LAUNCHER": "cloud-run"})


@pytest.mark.parametrize(
    "job", ["esteira-training", "projects/p/locations/r/services/s", "projects/p/locations/r/jobs/"]
)
def test_a_job_has_its_full_name(job: str) -> None:
    with pytest.raises(SettingsInvalid, match=f"TRAINING_JOB is '{job}'; LAUNCHER=cloud-run needs"):
        read_settings(Settings, {**ENVIRON, "LAUNCHER": "cloud-run", "TRAINING_JOB": job})


def test_jobs_on_this_machine_need_no_name() -> None:
    assert read_settings(Settings, ENVIRON).launcher == "subprocess"


def test_what_is_wrong_with_pushes_is_still_found() -> None:
    with pytest.raises(SettingsInvalid, match="PUSH_AUDIENCE"):
        read_settings(Settings, {**ENVIRON, "PUSH_AUTHENTICATION": "oidc"})


@pytest.mark.parametrize(("token", "told"), [("", False), (NO_TOKEN, False), ("ghp_1", True)])
def test_github_is_told_once_a_person_gave_a_token(token: str, told: bool) -> None:
    settings = read_settings(Settings, {**ENVIRON, "GITHUB_REPOSITORY": "acme/ml", "GITHUB_TOKEN": token})
    dispatcher = make_dispatcher(settings, make_engine("postgresql+psycopg://u@h/d"))
    assert (dispatcher is not None) is told
