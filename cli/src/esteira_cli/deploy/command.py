"""`esteira deploy`."""

import os
import sys
from pathlib import Path

import click
import yaml

from esteira.exceptions import EsteiraError
from esteira_cli.deploy.cloud_run import CloudRun
from esteira_cli.deploy.rollout import Open, Outcome, Rollout, migrate
from esteira_cli.deploy.smoke import Site
from esteira_cli.deploy.templates import MIGRATIONS, TARGETS, TRAINING, Manifest, Templates
from esteira_cli.production import IMPERSONATED, google_token, proof

MIGRATE_FIRST = ("etl", "trainer", "monitor")
"""The services that use the database; each image brings the migrations."""


@click.command()
@click.argument("service", type=click.Choice(list(TARGETS)))
@click.option("--image", required=True, help="With its digest, or a commit as its tag.")
@click.option("--project", envvar="GCP_PROJECT", default="", metavar="ID", help="[env: GCP_PROJECT]")
@click.option(
    "--project-number", envvar="GCP_PROJECT_NUMBER", default="", metavar="N", help="[env: GCP_PROJECT_NUMBER]"
)
@click.option("--region", envvar="GCP_REGION", default="", help="[env: GCP_REGION]")
@click.option(
    "--github-repository",
    "repository",
    envvar="GITHUB_REPOSITORY",
    default="",
    metavar="OWNER/NAME",
    help="Whose workflows carry approved models to production. [env: GITHUB_REPOSITORY]",
)
@click.option("--root", default=Path(), type=click.Path(path_type=Path), help="The work tree that the image is of.")
@click.option("--skip-migrations", is_flag=True, help="Leave the database's schema as it is.")
@click.option("--dry-run", is_flag=True, help="Print what would be applied, and call nothing.")
def deploy(
    service: str,
    image: str,
    project: str,
    project_number: str,
    region: str,
    repository: str,
    root: Path,
    skip_migrations: bool,
    dry_run: bool,
) -> None:
    """Deploy an image: migrations, a revision without traffic, its smoke test, traffic, proof; or the way back.

    Exit codes: 0 the new revision serves, 1 it does not and what served before does, 2 nothing was tried.
    """
    values = {
        "PROJECT": project,
        "PROJECT_NUMBER": project_number,
        "REGION": region,
        "IMAGE": image,
        "GITHUB_REPOSITORY": repository,
    }
    try:
        manifests = _render(Templates(root, values), service, skip_migrations)
        if dry_run:
            click.echo(yaml.safe_dump_all(manifests.values(), sort_keys=False), nl=False)
            return
        cloud_run = CloudRun(project, region, lambda line: click.echo(f"$ {line}"))
        if "migrations" in manifests:
            migrate(cloud_run, manifests["migrations"])
        rollout = Rollout(service, cloud_run, _opener(service, cloud_run), _pipelines(root), click.echo)
        outcome = rollout.deploy(manifests["service"])
    except EsteiraError as error:
        _tell(service, False, f"nothing was deployed: {error}")
        sys.exit(2)
    if outcome.serves and "training" in manifests:
        outcome = _renew_training(cloud_run, manifests["training"], outcome)
    _tell(service, outcome.serves, outcome.text)
    sys.exit(0 if outcome.serves else 1)


def _renew_training(cloud_run: CloudRun, job: Manifest, outcome: Outcome) -> Outcome:
    """The job that the trainer starts gets the trainer's image, once that serves."""
    try:
        cloud_run.replace_job(job)
    except EsteiraError as error:
        return Outcome(False, f"{outcome.text}, but trains with the code of before, so deploy again: {error}")
    return outcome


def _render(templates: Templates, service: str, skip_migrations: bool) -> dict[str, Manifest]:
    """All that is applied, in its order; rendered before anything is."""
    found = {} if skip_migrations or service not in MIGRATE_FIRST else {"migrations": templates.render(MIGRATIONS)}
    found["service"] = templates.render(TARGETS[service])
    if service == "trainer":
        found["training"] = templates.render(TRAINING)
    return found


def _pipelines(root: Path) -> list[str]:
    return sorted(path.parent.name for path in (root / "pipelines").glob("*/pipeline.yaml"))


def _opener(service: str, cloud_run: CloudRun) -> Open:
    """Asks as the account that `ESTEIRA_SERVICE_ACCOUNT` names, or else as whoever is logged in to gcloud."""

    def open_site(url: str, audience: str) -> Site:
        token = google_token(audience) if os.environ.get(IMPERSONATED) else cloud_run.identity_token()
        return Site(url, proof(service, token), takes_keys=service == "predictor")

    return open_site


def _tell(service: str, serves: bool, text: str) -> None:
    click.echo(text if serves else f"Error: {text}", err=not serves)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as stream:
            stream.write(f"{'✅' if serves else '❌'} **{service}**: {text}\n\n")
