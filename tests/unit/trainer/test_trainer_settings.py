import pytest

from esteira.exceptions import SettingsInvalid
from esteira.settings import read_settings
from trainer.main import Settings

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
