"""`esteira deploy`, against a gcloud that remembers: what serves in the end, whatever goes wrong on the way."""

from pathlib import Path

import pytest
import yaml

from esteira_cli.deploy.smoke import CHECKS
from esteira_cli.deploy.templates import TARGETS
from fake_cloud import NEW, OLD, Cloud, Deploy, image
from gcloud import GCLOUD, lint

FIRST_CALLS = 12
"""More calls of gcloud than a deploy makes."""


@pytest.fixture
def deployed(cloud: Cloud, deploy: Deploy) -> Cloud:
    """The predictor serves the old commit."""
    done = deploy("predictor", OLD)
    assert done.returncode == 0, done.stderr
    return cloud


def test_a_new_revision_is_tried_without_traffic_and_serves_afterwards(deployed: Cloud, deploy: Deploy) -> None:
    before = len(deployed.calls)
    done = deploy("predictor", NEW)
    assert done.returncode == 0, done.stderr
    assert (deployed.serving("predictor"), deployed.tags("predictor")) == (NEW, {"stable": NEW})
    verbs = [call.split(" --")[0] for call in deployed.calls[before:] if call.startswith("run")]
    assert [verb.split("/")[0].rstrip() for verb in verbs] == [
        "run services list",
        "run services replace",
        "run services list",
        "run services update-traffic esteira-predictor",
        "run services list",
        "run services update-traffic esteira-predictor",
    ]
    assert "serves at" in done.stdout
    assert NEW[:7] not in done.stderr


def test_the_candidate_has_no_traffic_while_it_is_tried(deployed: Cloud, deploy: Deploy) -> None:
    deployed.plan(at_4="kill")
    assert deploy("predictor", NEW).returncode < 0
    assert (deployed.serving("predictor"), deployed.tags("predictor")) == (OLD, {"stable": OLD, "candidate": NEW})


@pytest.mark.parametrize("service", TARGETS)
def test_every_service_can_be_deployed_first_and_again(cloud: Cloud, deploy: Deploy, service: str) -> None:
    for commit in (OLD, NEW):
        done = deploy(service, commit)
        assert done.returncode == 0, done.stderr
        assert (cloud.serving(service), cloud.tags(service)) == (commit, {"stable": commit})
    assert set(CHECKS) == set(TARGETS)


def test_the_same_deploy_twice_makes_one_revision(deployed: Cloud, deploy: Deploy) -> None:
    assert deploy("predictor", OLD).returncode == 0
    assert deployed.commits("predictor") == [OLD]
    assert (deployed.serving("predictor"), deployed.tags("predictor")) == (OLD, {"stable": OLD})


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("score", "scores example row 0 as 0.5, in training it was 0.25"),
        ("refused", "the release of p is refused: sha256 differs"),
        ("ready", "/health/ready: answered 400"),
        ("form", "answer of another form"),
    ],
)
def test_a_smoke_test_that_fails_moves_no_traffic(deployed: Cloud, deploy: Deploy, trouble: str, said: str) -> None:
    deployed.scores[NEW] = {"score": [0.5], "form": []}.get(trouble, [0.25])
    deployed.refused = {NEW: "sha256 differs"} if trouble == "refused" else {}
    deployed.unready = {NEW} if trouble == "ready" else set()
    done = deploy("predictor", NEW)
    assert done.returncode == 1
    assert said in done.stderr
    assert "serves, as before" in done.stderr
    assert said in (deployed.folder / "summary.md").read_text()
    assert (deployed.serving("predictor"), deployed.tags("predictor")) == (OLD, {"stable": OLD})
    assert not any(f"--to-revisions={name}=100" in call for call in deployed.calls[3:] for name in newest(deployed))


def test_a_predictor_that_takes_keys_alone_is_shown_one(deployed: Cloud, deploy: Deploy) -> None:
    deployed.key = "sesame"
    refused = deploy("predictor", NEW)
    assert refused.returncode == 1
    assert "send X-Api-Key" in refused.stderr
    assert "set ESTEIRA_API_KEY" in refused.stderr
    assert "bootstrap.sh" not in refused.stderr
    assert deploy("predictor", NEW, ESTEIRA_API_KEY="sesame").returncode == 0
    assert deployed.serving("predictor") == NEW


def test_who_is_refused_by_a_service_that_takes_no_key_is_not_told_to_set_one(cloud: Cloud, deploy: Deploy) -> None:
    cloud.guarded, cloud.key = {"etl"}, "sesame"
    done = deploy("etl", NEW)
    assert done.returncode == 1
    assert "answered 401" in done.stderr
    assert "ESTEIRA_API_KEY" not in done.stderr
    assert "bootstrap.sh" not in done.stderr


def test_who_is_refused_by_cloud_run_is_told_to_be_let_in(deployed: Cloud, deploy: Deploy) -> None:
    deployed.token = "another"
    done = deploy("predictor", NEW)
    assert done.returncode == 1
    assert "bootstrap.sh --after-deploy" in done.stderr
    assert "ESTEIRA_API_KEY" not in done.stderr


def newest(cloud: Cloud) -> list[str]:
    return [list(cloud.service("predictor")["revisions"])[-1]]


def test_a_revision_that_does_not_start_moves_no_traffic(cloud: Cloud, deploy: Deploy) -> None:
    assert deploy("etl", OLD).returncode == 0
    cloud.plan(at_4="fail")
    done = deploy("etl", NEW)
    assert (done.returncode, cloud.serving("etl"), cloud.tags("etl")) == (1, OLD, {"stable": OLD})


def test_traffic_goes_back_when_the_old_revision_still_answers(deployed: Cloud, deploy: Deploy) -> None:
    deployed.plan(at_5="fail")
    done = deploy("predictor", NEW)
    assert done.returncode == 1
    assert (deployed.serving("predictor"), deployed.tags("predictor")) == (OLD, {"stable": OLD})


def test_a_way_back_that_fails_is_said_and_taken_by_the_next_deploy(deployed: Cloud, deploy: Deploy) -> None:
    deployed.plan(**{f"at_{call}": "fail" for call in range(6, FIRST_CALLS)})
    done = deploy("predictor", NEW)
    assert done.returncode == 1
    assert "Nor did the way back succeed" in done.stderr
    assert deployed.serving("predictor") == NEW
    deployed.plan()
    deployed.scores[NEW] = [0.5]
    assert deploy("predictor", NEW).returncode == 1
    assert (deployed.serving("predictor"), deployed.tags("predictor")) == (OLD, {"stable": OLD})


def test_a_first_deploy_that_fails_says_that_nothing_serves_instead(cloud: Cloud, deploy: Deploy) -> None:
    cloud.scores[OLD] = [0.5]
    done = deploy("predictor", OLD)
    assert (done.returncode, cloud.tags("predictor")) == (1, {"candidate": OLD})
    assert "no other revision to go back to" in done.stderr
    assert deploy("predictor", NEW).returncode == 0
    assert (cloud.serving("predictor"), cloud.tags("predictor")) == (NEW, {"stable": NEW})


@pytest.mark.parametrize("trouble", ["kill", "kill-after", "fail-after"])
@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
def test_killed_at_any_call_and_run_again_it_comes_to_the_same_end(
    deployed: Cloud, deploy: Deploy, trouble: str, good: bool
) -> None:
    deployed.scores[NEW] = [0.25 if good else 0.5]
    end = (0, NEW, {"stable": NEW}) if good else (1, OLD, {"stable": OLD})
    at_first = deployed.kept
    for call in range(1, FIRST_CALLS):
        deployed.write("state.json", at_first)
        deployed.plan(**{f"at_{call}": trouble})
        first = deploy("predictor", NEW)
        if deployed.calls_made < call:
            break
        assert first.returncode != 0, f"trouble at call {call} must be noticed"
        deployed.plan()
        again = deploy("predictor", NEW)
        assert (again.returncode, deployed.serving("predictor"), deployed.tags("predictor")) == end, f"call {call}"
    assert 5 < call < FIRST_CALLS - 1


def test_migrations_run_first_and_with_the_code_that_is_deployed(cloud: Cloud, deploy: Deploy) -> None:
    assert deploy("monitor", NEW).returncode == 0
    assert cloud.kept["executions"] == [image("monitor", NEW)]
    assert [call.split()[1] for call in cloud.calls[:3]] == ["jobs", "jobs", "services"]


def test_migrations_of_another_deploy_do_not_count(cloud: Cloud, deploy: Deploy) -> None:
    cloud.plan(at_2="swap")
    assert deploy("etl", NEW).returncode == 0
    assert cloud.kept["executions"] == ["the image of another deploy", image("etl", NEW)]


def test_nothing_is_deployed_when_migrations_fail(cloud: Cloud, deploy: Deploy) -> None:
    cloud.plan(at_2="fail")
    done = deploy("etl", NEW)
    assert (done.returncode, cloud.kept["services"]) == (2, {})
    assert "nothing was deployed: gcloud run jobs execute esteira-migrations failed: ERROR" in done.stderr


def test_migrations_can_be_left_out(cloud: Cloud, deploy: Deploy) -> None:
    assert deploy("etl", NEW, "--skip-migrations").returncode == 0
    assert cloud.kept["jobs"] == {}


def test_the_training_job_follows_the_trainer_that_serves(cloud: Cloud, deploy: Deploy) -> None:
    assert deploy("trainer", OLD).returncode == 0
    cloud.unready = {NEW}
    assert deploy("trainer", NEW).returncode == 1
    job = cloud.kept["jobs"]["esteira-training"]
    assert job["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["image"] == image("trainer", OLD)


def test_a_training_job_that_cannot_follow_is_an_error(cloud: Cloud, deploy: Deploy) -> None:
    cloud.write("plan.json", {})
    assert deploy("trainer", OLD).returncode == 0
    last = len(cloud.calls)
    cloud.plan(**{f"at_{last}": "fail"})
    done = deploy("trainer", NEW)
    assert done.returncode == 1
    assert "trains with the code of before, so deploy again" in done.stderr


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"GCP_PROJECT": ""}, [], "--project: is missing"),
        ({"GCP_REGION": "Europe"}, [], "--region: is 'Europe', not of the form europe-west1"),
        ({"PATH": "/nowhere"}, [], "there is no gcloud"),
        ({}, ["--image", "gcr.io/p/etl:latest"], "tags move"),
        ({}, ["--root", "/nowhere"], "in a clone of the repository"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_done(
    cloud: Cloud, deploy: Deploy, changes: dict[str, str], options: list[str], said: str
) -> None:
    done = deploy("etl", NEW, *options, **changes)
    assert (done.returncode, cloud.calls) == (2, [])
    assert said in done.stderr


def test_an_unknown_service_is_named(cloud: Cloud, deploy: Deploy) -> None:
    done = deploy("elt", NEW)
    assert (done.returncode, cloud.calls) == (2, [])
    assert "'elt' is not one of" in done.stderr


def test_a_dry_run_shows_what_would_be_applied_and_calls_nothing(cloud: Cloud, deploy: Deploy) -> None:
    done = deploy("trainer", NEW, "--dry-run")
    shown = list(yaml.safe_load_all(done.stdout))
    assert (done.returncode, cloud.calls) == (0, [])
    assert [one["metadata"]["name"] for one in shown] == ["esteira-migrations", "esteira-trainer", "esteira-training"]


@pytest.mark.skipif(GCLOUD is None, reason="gcloud is not installed: its linter cannot look at deploy's commands")
def test_every_command_is_one_that_gcloud_has(cloud: Cloud, deploy: Deploy, tmp_path: Path) -> None:
    assert deploy("trainer", OLD).returncode == 0
    cloud.unready = {NEW}
    assert deploy("trainer", NEW).returncode == 1
    (tmp_path / "lint").mkdir()
    assert lint([f"gcloud {call}" for call in cloud.calls], tmp_path / "lint") == {}
