"""`esteira validate`: stops a commit that answers otherwise than production, or makes a worse model."""

import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import click

from esteira.bucket import Bucket
from esteira.exceptions import EsteiraError, TransientError
from esteira_cli.stack.commands import state_dir
from esteira_cli.validate import checks
from esteira_cli.validate.changes import EVERYTHING, Changes, describe_head, find_changes, find_root
from esteira_cli.validate.checks import Finding, Runner
from esteira_cli.validate.plots import write_plot
from esteira_cli.validate.production import Production, fetch_dataset, fetch_production, list_production
from esteira_cli.validate.report import to_json, to_markdown
from esteira_cli.validate.results import PipelineResult, Validation

STOPPED = 1
FAILED = 2
SERVICES = ("predictor", "etl", "trainer")


class CannotValidate(click.ClickException):
    """Nothing was found out: not the commit is at fault but how or where it was checked."""

    exit_code = FAILED


@click.command()
@click.option("--pipeline", "names", multiple=True, metavar="NAME", help="Check this one; may be repeated. [all]")
@click.option("--base", metavar="REF", help="The commit to compare with. [where this one left main]")
@click.option("--all", "everything", is_flag=True, help="Run every check, whatever changed.")
@click.option("--bucket", "bucket_name", envvar="ESTEIRA_BUCKET", help="Production's bucket. [the local stack's]")
@click.option("--project", envvar="GOOGLE_CLOUD_PROJECT", help="The bucket's Google Cloud project.")
@state_dir
@click.option(
    "--pipelines",
    default="pipelines",
    show_default=True,
    envvar="PIPELINES_DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder with one folder for each pipeline.",
)
@click.option(
    "--report-dir",
    default="validation",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where report.md, report.json and the plots go.",
)
@click.option(
    "--comment-file", type=click.Path(path_type=Path, dir_okay=False), help="Write the pull request's comment here."
)
@click.option("--tolerance", default=0.0, show_default=True, type=click.FloatRange(0), help="For scores.")
@click.pass_context
def validate(
    context: click.Context,
    names: tuple[str, ...],
    base: str | None,
    everything: bool,
    bucket_name: str | None,
    project: str | None,
    home: Path,
    pipelines: Path,
    report_dir: Path,
    comment_file: Path | None,
    tolerance: float,
) -> None:
    """Check changed code against the model in production.

    Exit status: 0 it passes, 1 it is stopped, 2 it could not be checked.
    """
    try:
        _require_services()
        root = find_root(Path.cwd())
        changes = _changes(root, base, everything)
        bucket = _bucket(bucket_name, project, home)
        with tempfile.TemporaryDirectory(prefix="esteira-validate-") as work:
            validator = Validator(bucket, changes, root, pipelines.resolve(), Path(work), tolerance)
            results = [validator.validate(name) for name in _names(bucket, pipelines, names)]
    except EsteiraError as error:
        raise CannotValidate(str(error)) from error
    validation = Validation(base=changes.base, head=describe_head(root) if root else "this folder", results=results)
    _write(validation, report_dir, comment_file)
    click.echo(f"{'passes' if validation.passed else 'is stopped'}; see {report_dir / 'report.md'}")
    context.exit(0 if validation.passed else STOPPED)


class Validator:
    """Checks one pipeline after another."""

    def __init__(
        self, bucket: Bucket, changes: Changes, root: Path | None, pipelines: Path, work: Path, tolerance: float
    ) -> None:
        self._bucket = bucket
        self._changes = changes
        self._root = root
        self._pipelines = pipelines
        self._work = work
        self._tolerance = tolerance
        self._runner = Runner(root, work)

    def validate(self, name: str) -> PipelineResult:
        """Replays always, and trains anew where the changes ask for it.

        Raises:
            TransientError: the bucket does not answer.
        """
        _say(name, "fetching what production serves")
        try:
            production = fetch_production(self._bucket, name, self._work)
        except TransientError:
            raise
        except EsteiraError as error:
            return PipelineResult(pipeline=name, version=None, findings=[_told(name, checks.refused("replay", error))])
        if production is None:
            note = "nothing was promoted yet: there is nothing to compare with"
            _say(name, note)
            return PipelineResult(pipeline=name, version=None, findings=[], notes=[note])
        findings = self._replay(name, production)
        notes: list[str] = []
        if not (self._pipelines / name / "pipeline.yaml").is_file():
            notes.append("there is no folder of this pipeline here: nothing was trained")
        elif self._changes.asks_for_training(self._folder(name)):
            findings += self._try_anew(name, production)
        else:
            notes.append("neither the pipeline's folder nor code that makes datasets or models changed: not trained")
        return PipelineResult(pipeline=name, version=production.release.version, findings=findings, notes=notes)

    def _replay(self, name: str, production: Production) -> list[Finding]:
        """With the champion, and with the challenger while a canary runs."""
        findings = []
        for release in filter(None, (production, production.challenger)):
            _say(name, f"replaying requests with release {release.release.version}")
            findings.append(_told(name, checks.replay(self._runner, release, self._tolerance)))
        return findings

    def _try_anew(self, name: str, production: Production) -> list[Finding]:
        folder, out = self._pipelines / name, self._work / f"{name}-prepared"
        _say(name, f"fetching dataset version {production.release.dataset.version}")
        try:
            dataset = fetch_dataset(self._bucket, production, self._work)
        except TransientError:
            raise
        except EsteiraError as error:
            return [_told(name, checks.refused("retrial", error))]
        deliberate = self._is_deliberate(name, production)
        _say(name, f"preparing its {len(dataset.manifest.parts)} files anew")
        rechecked = _told(name, checks.recheck(self._runner, folder, dataset, out, deliberate=deliberate))
        data = checks.choose_data(rechecked, dataset, out)
        _say(name, f"training on {dataset.manifest.labelled} rows")
        tried = checks.retrial(self._runner, folder, production, dataset, data, deliberate=deliberate)
        return [rechecked, _told(name, tried)]

    def _is_deliberate(self, name: str, production: Production) -> bool:
        """Whether the pipeline itself is another than the champion's, so that its rows may be."""
        statement = self._pipelines / name / "features.sql"
        same = statement.is_file() and statement.read_text("utf-8") == production.statement
        return not same or bool(self._changes.pipeline(self._folder(name)))

    def _folder(self, name: str) -> str:
        """The pipeline's folder, relative to the root; empty where it lies elsewhere."""
        folder = self._pipelines / name
        if self._root is None or not folder.is_relative_to(self._root.resolve()):
            return ""
        return folder.relative_to(self._root.resolve()).as_posix()


def _say(name: str, what: str) -> None:
    click.echo(f"{name}: {what}", err=True)


def _told(name: str, finding: Finding) -> Finding:
    _say(name, f"{finding.check} {finding.verdict} in {finding.seconds:.1f} s: {finding.summary}")
    return finding


def _require_services() -> None:
    missing = [name for name in SERVICES if find_spec(name) is None]
    if missing:
        raise CannotValidate(f"{', '.join(missing)} not installed here; install the workspace (`make install`)")


def _changes(root: Path | None, base: str | None, everything: bool) -> Changes:
    if everything:
        return EVERYTHING
    if root is None:
        raise CannotValidate("this folder is in no Git work tree: run it in one, or check everything with --all")
    return find_changes(root, base)


def _bucket(name: str | None, project: str | None, home: Path) -> Bucket:
    """Production's, or that of the local stack."""
    if name is not None:
        return Bucket(name, project or "esteira")
    from esteira_cli.stack.stack import Stack

    environment = Stack(home).environment("predictor")
    where = environment["STORAGE_EMULATOR_HOST"]
    return Bucket(environment["BUCKET"], environment["GOOGLE_CLOUD_PROJECT"], where)


def _names(bucket: Bucket, pipelines: Path, wanted: tuple[str, ...]) -> list[str]:
    """The pipelines that are here or in production."""
    known = {path.parent.name for path in pipelines.glob("*/pipeline.yaml")} | set(list_production(bucket))
    if unknown := sorted(set(wanted) - known):
        there_are = ", ".join(sorted(known)) or "none"
        raise CannotValidate(f"there is no pipeline {', '.join(unknown)}, here or in production; known: {there_are}")
    return sorted(wanted or known)


def _write(validation: Validation, folder: Path, comment: Path | None) -> None:
    if folder.is_dir():
        for old in [*folder.glob("*.png"), *folder.glob("report.*")]:
            old.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    plots = {result.pipeline: write_plot(result, folder) for result in validation.results}
    text = to_markdown(validation, {name: plot for name, plot in plots.items() if plot})
    (folder / "report.md").write_text(text, "utf-8")
    (folder / "report.json").write_bytes(to_json(validation))
    if comment is not None:
        comment.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "report.md", comment)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(text)
