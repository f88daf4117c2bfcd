"""`esteira up`, `down`, `status` and `logs`."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from esteira_cli.stack.blueprint import Options
from esteira_cli.stack.errors import StackError
from esteira_cli.stack.processes import log_tail
from esteira_cli.stack.reporting import component_table, console, progress
from esteira_cli.stack.stack import Stack

state_dir = click.option(
    "--state-dir",
    "home",
    envvar="ESTEIRA_HOME",
    default=".esteira",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The stack's folder: data, logs, addresses. [env: ESTEIRA_HOME]",
)


@click.command()
@state_dir
@click.option(
    "--pipelines",
    default="pipelines",
    show_default=True,
    envvar="PIPELINES_DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The folder with one folder for each pipeline.",
)
@click.option("--only", multiple=True, metavar="NAME", help="Start this and what it needs; may be repeated.")
@click.option("--tick-seconds", default=2.0, show_default=True, type=click.FloatRange(0.1), help="Pace of the timer.")
@click.option("--durable/--fast", default=True, show_default=True, help="Whether Postgres waits for the disk.")
@click.option("--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning"]))
def up(home: Path, pipelines: Path, only: tuple[str, ...], tick_seconds: float, durable: bool, log_level: str) -> None:
    """Start the local stack, or what of it is down; return when all is healthy."""
    stack = Stack(home, pipelines, Options(tick_seconds=tick_seconds, durable=durable, log_level=log_level))
    with progress() as report:
        try:
            states = stack.up(only=only or None, report=report)
        except KeyboardInterrupt:
            raise click.ClickException("interrupted: `esteira up` goes on, `esteira down` stops what runs") from None
    console().print(component_table(states))


@click.command()
@state_dir
@click.option("--wipe", is_flag=True, help="Remove the stack's folder with all its data too.")
@click.option("--yes", is_flag=True, help="Do not ask before removing data; needed where there is no terminal.")
def down(home: Path, wipe: bool, yes: bool) -> None:
    """Stop the local stack; no process is left behind."""
    if wipe and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(
                f"nobody can be asked, for this is no terminal; --yes removes {home.resolve()} unasked"
            )
        click.confirm(f"Remove {home.resolve()} with all its data?", abort=True)
    with progress() as report:
        Stack(home).down(wipe=wipe, report=report)


@click.command()
@state_dir
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(home: Path, as_json: bool) -> None:
    """Show processes and pipelines at one glance."""
    from esteira_cli.stack.overview import overview
    from esteira_cli.stack.reporting import overview_tables

    stack = Stack(home)
    states, found = stack.state(), overview(stack)
    if as_json:
        click.echo(json.dumps({"processes": [asdict(state) for state in states], **found}, indent=2))
        return
    console().print(component_table(states), *overview_tables(found), sep="\n")


@click.command()
@state_dir
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on showing lines as they come.")
@click.option("-n", "--lines", default=50, show_default=True, type=click.IntRange(1))
def logs(home: Path, name: str, follow: bool, lines: int) -> None:
    """Show what a process of the stack wrote."""
    stack = Stack(home)
    known = sorted(stack.blueprint().components())
    if name not in known:
        raise StackError(f"there is no process {name!r}; there are: {', '.join(known)}")
    for line in log_tail(stack.home, name, lines):
        click.echo(line)
    if follow:
        for chunk in _grow(stack.log(name)):
            click.echo(chunk, nl=False)


def _grow(log: Path) -> Iterator[str]:
    """Yields what is appended to `log`, across its rotation."""
    position = log.stat().st_size if log.exists() else 0
    while True:
        size = log.stat().st_size if log.exists() else 0
        position = min(position, size)
        if size > position:
            with log.open("rb") as file:
                file.seek(position)
                chunk = file.read()
            position += len(chunk)
            yield chunk.decode(errors="replace")
        time.sleep(0.2)
