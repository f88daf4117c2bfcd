"""infra/*.sh, and every gcloud command that scripts, workflows and pages use, against gcloud's own linter."""

import re
import shlex
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

import gcloud
from esteira.topology import SUBSCRIPTIONS, TOPICS, dead_letter_topic
from esteira.topology_commands import PUBLISHERS, Place
from pages import ROOT, read, table_rows, ticked

PLACE = ["--project", "acme-ml", "--region", "europe-west1"]
BOOTSTRAP = [
    "infra/bootstrap.sh",
    *PLACE,
    "--repository-id",
    "11",
    "--repository-owner-id",
    "22",
    "--email",
    "a@b.example",
]
NOBODY = BOOTSTRAP[:-2]
"""The same without an address."""
DESTROY = ["infra/destroy.sh", *PLACE]
VERBS = {
    "create",
    "create-oidc",
    "describe",
    "update",
    "update-oidc",
    "list",
    "delete",
    "patch",
    "add-iam-policy-binding",
}
READING = {"describe", "list"}
SERVICES = ("etl", "trainer", "predictor", "monitor")
needs_gcloud = pytest.mark.skipif(not gcloud.GCLOUD, reason="gcloud is not installed: no command was linted")


def call(arguments: list[str], environ: dict[str, str], text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / arguments[0]), *arguments[1:]], env=environ, input=text, capture_output=True, text=True, check=False
    )


def printed(arguments: list[str], home: Path) -> list[str]:
    """What a dry run prints where gcloud cannot be called."""
    environ = {"PATH": offline(home), "HOME": str(home), "PYTHON": sys.executable}
    done = call([*arguments, "--dry-run"], environ)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("gcloud ")]


def offline(home: Path) -> str:
    """A folder of a gcloud that fails, before all others."""
    folder = home / "failing"
    folder.mkdir(exist_ok=True)
    (folder / "gcloud").write_text("#!/bin/sh\necho gcloud was called >&2\nexit 9\n")
    (folder / "gcloud").chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


class Runs:
    """Bootstrap twice, callers let in after a deploy, and destroyed, all against the same fake."""

    def __init__(self, folder: Path) -> None:
        environ = gcloud.install_fake(folder)
        state = folder / "state"
        self.first = self.remember(folder, BOOTSTRAP, environ)
        self.made = {path.name for path in state.iterdir()}
        self.second = self.remember(folder, BOOTSTRAP, environ)
        self.kept = {path.name for path in state.iterdir()}
        for name in (*SERVICES, "mlflow"):
            (state / f"run_services_esteira-{name}").touch()
        (state / "run_jobs_esteira-training").touch()
        self.third = self.remember(folder, [*BOOTSTRAP, "--after-deploy"], environ)
        self.policies = [policies(state)]
        for change in ([], ["--email", "c@d.example"], []):
            self.remember(folder, [*NOBODY, *change], environ)
            self.policies.append(policies(state))
        self.last = self.remember(folder, DESTROY, environ, "acme-ml\n")
        self.left = {path.name for path in state.iterdir()}

    def remember(self, folder: Path, arguments: list[str], environ: dict[str, str], text: str = "") -> list[list[str]]:
        before = len(gcloud.recorded(folder))
        done = call(arguments, environ, text)
        assert done.returncode == 0, done.stdout[-500:] + done.stderr
        return gcloud.recorded(folder)[before:]


def policies(state: Path) -> dict[str, tuple[str, int]]:
    """Alert policy → whether it is enabled, and how many channels it tells."""
    found = {path.name: path.read_text().split("\n") for path in state.glob("monitoring_policies_*")}
    return {name: (enabled, len([c for c in channels.split(",") if c])) for name, (enabled, channels) in found.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


def creations(calls: list[list[str]]) -> list[str]:
    identities = ["services", "identity", "create"]  # idempotent by itself
    return [
        shlex.join(call)
        for call in calls
        if any(word in ("create", "create-oidc") for word in call) and call[1:4] != identities
    ]


def beginning(arguments: list[str]) -> tuple[str, ...]:
    """The words before the first flag: files lie elsewhere each time."""
    return tuple(takewhile(lambda word: not word.startswith("--"), arguments))


def form(command: str) -> tuple[str, ...]:
    """What the linter can tell apart: the words up to the verb, how many follow, and the flags without values."""
    words = shlex.split(command)
    plain, flags = beginning(words), sorted(word.partition("=")[0] for word in words if word.startswith("--"))
    verb = next((at for at, word in enumerate(plain) if word in VERBS), 3)
    return (*plain[: verb + 1], str(len(plain)), *flags)


def bindings(calls: list[list[str]]) -> set[tuple[str, str, str]]:
    """Resource, member without its kind, and role."""
    found = set()
    for arguments in calls:
        if "add-iam-policy-binding" in arguments:
            flags = dict(word.partition("=")[::2] for word in arguments if word.startswith("--"))
            resource = arguments[arguments.index("add-iam-policy-binding") + 1]
            found.add((resource, flags["--member"].partition(":")[2], flags["--role"]))
    return found


def test_a_second_bootstrap_creates_nothing(runs: Runs) -> None:
    assert len(creations(runs.first)) > 60
    assert creations(runs.second) == []
    assert runs.kept == runs.made


def test_who_is_told_of_alerts_stays_told_and_another_address_is_told_besides(runs: Runs) -> None:
    assert all(len(found) == 10 for found in runs.policies)
    told = [set(found.values()) for found in runs.policies]
    assert told == [{("True", 1)}, {("True", 1)}, {("True", 2)}, {("True", 2)}]


def test_an_alert_that_a_person_disabled_stays_disabled(tmp_path: Path) -> None:
    environ = gcloud.install_fake(tmp_path)
    assert call(BOOTSTRAP, environ).returncode == 0
    policy = next((tmp_path / "state").glob("monitoring_policies_*"))
    policy.write_text(policy.read_text().replace("True", "False"))
    assert call(NOBODY, environ).returncode == 0
    assert list(policies(tmp_path / "state").values()).count(("False", 1)) == 1


def test_a_second_bootstrap_grants_the_same_again(runs: Runs) -> None:
    assert bindings(runs.second) == bindings(runs.first)


def test_destroying_leaves_the_identity_pool_alone(runs: Runs) -> None:
    gone_with_their_instance = {name for name in runs.left if name.startswith(("sql_databases", "sql_users"))}
    gone_with_what_held_it = {
        name for name in runs.left if name.startswith(("storage_buckets_notifications", "secrets_versions"))
    }
    pools = {name for name in runs.left if name.startswith("iam_workload-identity-pools")}
    assert runs.left == gone_with_their_instance | gone_with_what_held_it | pools


def test_every_topic_and_subscription_of_the_declaration_is_made(runs: Runs) -> None:
    topics = {*TOPICS, *map(dead_letter_topic, TOPICS)}
    subscriptions = {*(s.name for s in SUBSCRIPTIONS), *map(dead_letter_topic, TOPICS)}
    assert {f"pubsub_topics_{name}" for name in topics} <= runs.made
    assert {f"pubsub_subscriptions_{name}" for name in subscriptions} <= runs.made


def test_subscriptions_push_with_tokens_and_never_expire(runs: Runs) -> None:
    place = Place(project="acme-ml", project_number="123456789012", region="europe-west1")
    for subscription in SUBSCRIPTIONS:
        (made,) = [c for c in runs.first if c[:4] == ["pubsub", "subscriptions", "create", subscription.name]]
        base = place.endpoint(subscription.hearer)
        assert {
            f"--push-endpoint={base}{subscription.path}",
            f"--push-auth-token-audience={base}",
            "--push-auth-service-account=esteira-push@acme-ml.iam.gserviceaccount.com",
            f"--ack-deadline={subscription.ack_deadline_s}",
            f"--dead-letter-topic={dead_letter_topic(subscription.topic)}",
            f"--max-delivery-attempts={subscription.max_attempts}",
            "--expiration-period=never",
        } <= set(made)


def test_pubsubs_own_account_may_move_dead_letters(runs: Runs) -> None:
    agent = "service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com"
    wanted = {(dead_letter_topic(topic), agent, "roles/pubsub.publisher") for topic in TOPICS}
    wanted |= {(s.name, agent, "roles/pubsub.subscriber") for s in SUBSCRIPTIONS}
    wanted |= {("esteira-push@acme-ml.iam.gserviceaccount.com", agent, "roles/iam.serviceAccountTokenCreator")}
    assert wanted <= bindings(runs.first)


def test_who_publishes_is_who_says_it() -> None:
    rows = [row for row in table_rows(read("docs/events.md")) if len(row) == 4 and ticked(row[0])]
    said = {ticked(row[0])[0]: {name for name in row[2].split(", ") if name in SERVICES} for row in rows}
    assert {topic: set(services) for topic, services in PUBLISHERS.items()} == {
        t: who for t, who in said.items() if who
    }


def test_no_account_of_ours_has_a_basic_or_an_administrators_role(runs: Runs) -> None:
    roles = {role for _, _, role in bindings(runs.first + runs.third)}
    assert not {role for role in roles if role in ("roles/owner", "roles/editor") or "admin" in role.lower()}


def test_every_right_is_documented(runs: Runs) -> None:
    page = read("docs/google-cloud.md")
    assert {role for _, _, role in bindings(runs.first + runs.third) if f"`{role}`" not in page} == set()


def test_callers_are_let_in_after_the_first_deploy_only(runs: Runs) -> None:
    push = "esteira-push@acme-ml.iam.gserviceaccount.com"
    let_in = {(f"esteira-{name}", push, "roles/run.invoker") for name in SERVICES}
    assert not let_in & bindings(runs.first)
    assert let_in <= bindings(runs.third)


def test_only_one_branch_of_one_repository_may_deploy_and_its_other_workflows_only_read(runs: Runs) -> None:
    (made,) = [c for c in runs.first if "create-oidc" in c]
    (condition,) = [word for word in made if word.startswith("--attribute-condition=")]
    assert condition.partition("=")[2] == "assertion.repository_id == '11' && assertion.repository_owner_id == '22'"
    pool = "principalSet://iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/esteira"
    assert {(account.partition("@")[0], member) for _, account, member in _bound(runs)} == {
        ("esteira-deploy", f"{pool}/attribute.branch/11:refs/heads/main"),
        ("esteira-validate", f"{pool}/attribute.repository_id/11"),
    }


def _bound(runs: Runs) -> set[tuple[str, str, str]]:
    """Role, account and member of who may be which account."""
    role = "roles/iam.workloadIdentityUser"
    calls = [call for call in runs.first if f"--role={role}" in call]
    member = "--member="
    return {
        (role, next(w for w in call if "@" in w and not w.startswith("--")), word.removeprefix(member))
        for call in calls
        for word in call
        if word.startswith(member)
    }


def test_the_validating_account_reads_and_does_nothing_else(runs: Runs) -> None:
    account = "esteira-validate@acme-ml.iam.gserviceaccount.com"
    assert {role for _, member, role in bindings(runs.first) if member == account} == {"roles/storage.objectViewer"}


def test_schedulers_agent_may_make_tokens(runs: Runs) -> None:
    agent = "service-123456789012@gcp-sa-cloudscheduler.iam.gserviceaccount.com"
    assert ("acme-ml", agent, "roles/cloudscheduler.serviceAgent") in bindings(runs.first)


@pytest.mark.parametrize(
    ("wrong", "named"), [(["--project", "X"], "--project"), (["--repository-id", "me/mine"], "--repository-id")]
)
def test_bootstrap_says_which_option_is_wrong(wrong: list[str], named: str, tmp_path: Path) -> None:
    done = call([*BOOTSTRAP, *wrong, "--dry-run"], {"PATH": offline(tmp_path), "HOME": str(tmp_path)})
    assert done.returncode == 2
    assert named in done.stderr


def test_destroying_needs_the_projects_name(tmp_path: Path) -> None:
    environ = gcloud.install_fake(tmp_path)
    done = call(DESTROY, environ, "yes\n")
    assert done.returncode == 2
    assert gcloud.recorded(tmp_path) == []


def test_a_dry_run_calls_no_gcloud_and_prints_what_a_first_run_does(runs: Runs, tmp_path: Path) -> None:
    done = [call for call in runs.first if not READING & set(call)]
    assert {told(shlex.split(text)[1:]) for text in printed(BOOTSTRAP, tmp_path)} == {told(call) for call in done}


def told(arguments: list[str]) -> tuple[str, ...]:
    """The words of a call before its flags, files by their name alone."""
    return tuple(word if "://" in word else word.rpartition("/")[2] for word in beginning(arguments))


def test_a_dry_run_after_a_deploy_prints_who_is_let_in(runs: Runs, tmp_path: Path) -> None:
    lines = [shlex.split(text)[1:] for text in printed([*BOOTSTRAP, "--after-deploy"], tmp_path)]
    assert bindings(lines) == bindings(runs.third)


def test_files_that_a_dry_run_names_are_there(tmp_path: Path) -> None:
    text = " ".join(printed(BOOTSTRAP, tmp_path))
    files = {
        word.rpartition("=")[2] for word in text.split() if word.endswith((".sql", ".json")) and "gs://" not in word
    }
    assert files
    assert {file for file in files if not (ROOT / file).is_file()} == set()


def test_each_account_writes_below_folders_of_its_own(runs: Runs) -> None:
    writers = {
        member.partition("@")[0]: set(re.findall(r"/objects/(\w+)/", " ".join(call)))
        for call in runs.first
        for _, member, role in bindings([call])
        if role == "roles/storage.objectUser"
    }
    assert writers == {
        "esteira-etl": {"datasets", "quarantine"},
        "esteira-trainer": {"releases", "serving", "mlflow"},
        "esteira-monitor": {"serving", "samples"},
    }


@needs_gcloud
def test_every_command_of_the_scripts_is_one_that_gcloud_has(runs: Runs, tmp_path: Path) -> None:
    commands = {*printed(BOOTSTRAP, tmp_path), *printed(DESTROY, tmp_path)}
    commands |= {shlex.join(["gcloud", *c]) for c in runs.first + runs.second + runs.third + runs.last}
    forms = {form(text): text for text in commands}
    assert len(forms) > 80
    assert gcloud.lint(forms.values(), tmp_path) == {}


@needs_gcloud
def test_every_command_of_pages_and_workflows_is_one_that_gcloud_has(tmp_path: Path) -> None:
    places = gcloud.in_pages() | gcloud.in_workflows()
    assert places, "no page shows a command: they are looked for in the wrong place"
    assert {places.get(text, text): (text, why) for text, why in gcloud.lint(places, tmp_path).items()} == {}


@needs_gcloud
def test_the_linter_finds_a_flag_that_there_is_not(tmp_path: Path) -> None:
    wrong = "gcloud pubsub topics create one --projct=acme-ml"
    assert list(gcloud.lint([wrong, "gcloud pubsub topics create two --project=acme-ml"], tmp_path)) == [wrong]


def test_commands_are_found_whole_in_scripts() -> None:
    script = 'x=$(gcloud auth print-identity-token --audiences="$URL")\n# gcloud no\n'
    script += "gcloud run services list \\\n  --region=r | cat\n"
    assert list(gcloud.commands_in(script)) == [
        'gcloud auth print-identity-token --audiences="value"',
        "gcloud run services list --region=r",
    ]
