"""The workflows, held against the repository, its commands, and what bootstrap prints."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from esteira_cli.main import cli
from pages import ROOT

FOLDER = ROOT / ".github/workflows"
WORKFLOWS = {path.stem: path.read_text() for path in FOLDER.glob("*.yml")}
SERVICES = ("etl", "trainer", "predictor", "monitor")


def parsed(name: str) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(WORKFLOWS[name])
    return found


def scripts(name: str) -> list[str]:
    return [step["run"] for job in parsed(name)["jobs"].values() for step in job.get("steps", []) if "run" in step]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_by_commit_and_say_their_version(name: str) -> None:
    for line in re.findall(r"uses: (.*)", WORKFLOWS[name]):
        assert re.fullmatch(r"\./\.github/workflows/_service\.yml|[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


@pytest.mark.parametrize("name", WORKFLOWS)
def test_rights_are_given_to_jobs_alone_and_each_has_a_time_limit(name: str) -> None:
    workflow = parsed(name)
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["permissions"]
        assert "uses" in job or job["timeout-minutes"] <= 180


@pytest.mark.parametrize("name", WORKFLOWS)
def test_what_others_wrote_reaches_scripts_through_the_environment_alone(name: str) -> None:
    assert not any("${{" in script for script in scripts(name))


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_built_when_what_its_image_holds_changes(service: str) -> None:
    workflow = parsed(service)
    on = workflow[True]  # YAML 1.1 reads `on` so
    paths = on["push"]["paths"]
    assert on["pull_request"]["paths"] == paths
    assert workflow["jobs"][service]["with"] == {"service": service}
    dockerfile = (ROOT / f"services/{service}/Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.M) for word in line.split()[:-1]]
    assert copied
    for source in copied:
        covered = {source, f"{source}/**", f"{Path(source).parent}/**"}
        assert covered & set(paths), f"{service}.yml does not look at {source}"


def commands() -> list[tuple[str, list[str]]]:
    return [
        (name, shlex.split(line)[1:])
        for name in WORKFLOWS
        for script in scripts(name)
        for line in script.replace("\\\n", " ").splitlines()
        if line.strip().startswith(".venv/bin/esteira ")
    ]


@pytest.mark.parametrize(("workflow", "words"), commands())
def test_each_command_takes_the_options_that_it_is_given(workflow: str, words: list[str]) -> None:
    values = {"$SERVICE": "etl", "$BASE": "HEAD"}
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None
    command.make_context(words[0], [values.get(word, word) for word in words[1:]])


def test_some_command_deploys_validates_and_promotes() -> None:
    assert {words[0] for _, words in commands()} == {"deploy", "validate", "promote"}


def test_every_make_target_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {target for name in WORKFLOWS for script in scripts(name) for target in re.findall(r"make (\w+)", script)}
    assert named
    assert named <= targets


def test_every_variable_is_one_that_bootstrap_prints() -> None:
    used = set(re.findall(r"vars\.(\w+)", "".join(WORKFLOWS.values())))
    printed = set(re.findall(r"^(GCP_\w+)=", (ROOT / "infra/bootstrap.sh").read_text(), re.M))
    assert used == printed
