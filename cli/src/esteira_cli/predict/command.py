"""`esteira predict`."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from esteira_cli.client import Client, PredictorRefused
from esteira_cli.client.encoding import MAX_ROWS
from esteira_cli.predict.address import URL, connect, find_url
from esteira_cli.predict.answering import Job, Report, answer_file
from esteira_cli.predict.columns import PipelineColumns
from esteira_cli.predict.outputs import ENDINGS
from esteira_cli.predict.sources import Source, open_source
from esteira_cli.production import API_KEY
from esteira_cli.stack.commands import state_dir

SOME_REFUSED = 3
"""The exit code where rows were refused, and all others answered."""
_FILE = click.Path(path_type=Path, dir_okay=False, exists=True, readable=True)


@click.command()
@click.argument("pipeline")
@click.argument("file", required=False, type=_FILE)
@click.option("--row", metavar="JSON", help="One raw row instead of a file: {column: value}.")
@click.option("--url", envvar=URL, metavar="URL", help=f"The predictor's address. [env: {URL}]")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="OUT.csv or OUT.parquet; if not given, FILE's name with .predictions.csv.",
)
@click.option("--batch", default=500, show_default=True, type=click.IntRange(1, MAX_ROWS), help="Rows in a request.")
@click.option("--connections", default=4, show_default=True, type=click.IntRange(1, 64), help="Requests in flight.")
@click.option(
    "--null",
    "null_values",
    multiple=True,
    metavar="TEXT",
    help="Of CSV, a text that means a missing value; may be repeated. [default: the pipeline's null_values]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@state_dir
def predict(
    pipeline: str,
    file: Path | None,
    row: str | None,
    url: str | None,
    output: Path | None,
    batch: int,
    connections: int,
    null_values: tuple[str, ...],
    as_json: bool,
    home: Path,
) -> None:
    """Ask for the predictions of a CSV (also .gz) or Parquet FILE of any size, or of one --row.

    The output has, in FILE's order, its entity columns, score, label, prediction_id and model_version. Rows that the
    predictor refuses go to OUTPUT.refused.csv, with reasons. An API key comes from ESTEIRA_API_KEY.

    Exit codes: 0 all rows are answered, 3 some were refused, 1 something went wrong and nothing was written.
    """
    if (file is None) == (row is None):
        raise click.UsageError("give either a FILE or --row")
    target = _target(file, output) if file else None
    asked = _row(row) if row is not None else {}
    client, described = connect(find_url(url, home), pipeline, os.environ.get(API_KEY) or None, connections)
    with client:
        if file is None or target is None:
            _answer_row(client, pipeline, asked, as_json)
            return
        columns = PipelineColumns.of(described)
        job = Job(
            client=client, pipeline=pipeline, columns=columns, output=target, batch=batch, connections=connections
        )
        with open_source(file, null_values or columns.null_values) as source:
            report = _answer(job, source)
    _show(job, report, as_json)


def _target(file: Path, output: Path | None) -> Path:
    if output is None:
        name = file.name.removesuffix(".gz").removesuffix(".csv").removesuffix(".parquet")
        output = file.with_name(f"{name}.predictions.csv")
    if output.suffix not in ENDINGS:
        raise click.BadParameter(f"{output} should end in {' or '.join(ENDINGS)}", param_hint="--output")
    if not output.parent.is_dir():
        raise click.BadParameter(f"there is no folder {output.parent}", param_hint="--output")
    if output.resolve() == file.resolve():
        raise click.BadParameter("is the file that is to be read", param_hint="--output")
    return output


def _row(text: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise click.BadParameter(f"is no JSON object of columns: {error}", param_hint="--row") from error
    return found


def _answer_row(client: Client, pipeline: str, row: dict[str, Any], as_json: bool) -> None:
    try:
        (answer,) = client.predict(pipeline, [row])
    except PredictorRefused as error:
        if not error.by_row():
            raise
        for reason in error.by_row()[0]:
            click.echo(f"refused: {reason}", err=True)
        sys.exit(SOME_REFUSED)
    if as_json:
        click.echo(msgspec.json.encode(answer))
        return
    shown = {"score": answer["score"], "label": answer["label"], "id": answer["prediction_id"]}
    for name, value in {**shown, "version": answer["model_version"]}.items():
        if value is not None:
            click.echo(f"{name:<8} {str(value).lower() if isinstance(value, bool) else value}")


def _answer(job: Job, source: Source) -> Report:
    try:
        with _progress(job.pipeline, source) as advance:
            return answer_file(job, source, lambda line: click.echo(line, err=True), advance)
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; nothing was written: the same command begins again") from None
    except OSError as error:
        raise click.ClickException(f"{job.output} cannot be written: {error.strerror or error}") from error


@contextmanager
def _progress(pipeline: str, source: Source) -> Iterator[Callable[[Report], None]]:
    """A bar on a terminal; nothing elsewhere."""
    shown = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=shown, disable=not shown.is_terminal, transient=True) as bar:
        task = bar.add_task(pipeline, total=source.size)

        def advance(report: Report) -> None:
            refused = f", {report.refused:,} refused" if report.refused else ""
            told = f"{pipeline}  {report.answered:,} answered{refused}"
            bar.update(task, completed=source.position(), description=told)

        yield advance


def _show(job: Job, report: Report, as_json: bool) -> None:
    refused_to = f"{job.output}.refused.csv" if report.refused else None
    if as_json:
        found = {"output": str(job.output), "refused_to": refused_to, **msgspec.structs.asdict(report)}
        click.echo(msgspec.json.encode(found))
    else:
        by = ", ".join(report.model_versions)
        click.echo(f"{report.answered:,} answered{f' by {by}' if by else ''}: {job.output}")
        if refused_to:
            click.echo(f"{report.refused:,} refused: {refused_to}")
    if report.refused:
        sys.exit(SOME_REFUSED)
