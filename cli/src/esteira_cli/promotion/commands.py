"""`esteira promote`, `esteira rollback`, `esteira history`."""

import getpass
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.table import Table

from esteira_cli.production import find_production, production_options
from esteira_cli.promotion.ledger import Entry, Ledger
from esteira_cli.promotion.waiting import see_served, see_trial_through
from esteira_cli.stack.reporting import console

ROLLED_BACK = 3
"""The exit code of a promotion that ended in a rollback."""
SERVED_S = 60.0
SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
MAIN_METRICS = ("roc_auc", "r2")

by_option = click.option(
    "--by", envvar=["ESTEIRA_BY", "GITHUB_ACTOR"], metavar="NAME", help="Who acts. [env: ESTEIRA_BY, GITHUB_ACTOR]"
)


@click.command()
@click.argument("pipeline")
@click.argument("version")
@click.option("--canary", type=SHARE, metavar="SHARE", help="Let it answer for a SHARE of entities.")
@click.option("--shadow", type=SHARE, metavar="SHARE", help="Let it score a SHARE beside the champion, who answers.")
@click.option("--wait", is_flag=True, help="See the trial through; without one, wait until the release serves.")
@click.option("--patience", default=90.0, show_default=True, type=click.FloatRange(0), help="Minutes to wait at most.")
@click.option("--reason", default="promoted by hand", show_default=True)
@by_option
@production_options
def promote(
    pipeline: str,
    version: str,
    canary: float | None,
    shadow: float | None,
    wait: bool,
    patience: float,
    reason: str,
    by: str | None,
    home: Path,
    **urls: str | None,
) -> None:
    """Make a release the champion, or with --canary or --shadow the challenger for a SHARE of entities.

    Exit codes: 0 it is promoted (without --wait: its trial runs), 3 it was rolled back, 1 something went wrong.
    """
    if canary is not None and shadow is not None:
        raise click.UsageError("one release is tried out in one way at a time; give --canary or --shadow")
    ledger, share = _ledger(home, urls, pipeline, by), canary if shadow is None else shadow
    if share is not None:
        _begin_trial(ledger, version, share, reason, shadow=shadow is not None, wait=wait)
        if wait:
            _see_through(ledger, version, patience * 60)
    else:
        _promote(ledger, version, reason)
    if wait:
        _see_served(ledger, version)


def _begin_trial(ledger: Ledger, version: str, share: float, reason: str, *, shadow: bool, wait: bool) -> None:
    """Another takes its place; but not where the release has just that one, or, where its end is waited for, won it."""
    newest = next(iter(ledger.rows()), None)
    same = newest is not None and ((wait and newest.share == 1) or (newest.share, newest.shadow) == (share, shadow))
    if newest is not None and newest.release_version == version and same:
        click.echo(f"{version} {_standing(newest)} already, by generation {newest.generation}")
        return
    generation = ledger.promote(version, share, reason, shadow=shadow)
    click.echo(f"{'shadow' if shadow else 'canary'} of {version} for {share:.0%} of entities, generation {generation}")


def _see_through(ledger: Ledger, version: str, patience: float) -> None:
    outcome, why = see_trial_through(ledger, version, patience, click.echo)
    click.echo(f"{version} was {outcome}: {why}")
    if outcome == "rolled back":
        sys.exit(ROLLED_BACK)


def _see_served(ledger: Ledger, version: str) -> None:
    if not ledger.can_see_served:
        click.echo("what the predictor serves was not looked at: it needs --predictor-url")
        return
    see_served(ledger, version, SERVED_S)
    click.echo(f"{version} serves")


def _promote(ledger: Ledger, version: str, reason: str) -> None:
    newest = next(iter(ledger.rows()), None)
    if newest is not None and newest.release_version == version and newest.share == 1:
        click.echo(f"{version} is the champion already, by generation {newest.generation}")
        return
    click.echo(f"{version} is the champion, generation {ledger.promote(version, 1.0, reason)}")


@click.command()
@click.argument("pipeline")
@click.option("--reason", default="rolled back by hand", show_default=True)
@by_option
@production_options
def rollback(pipeline: str, reason: str, by: str | None, home: Path, **urls: str | None) -> None:
    """End the canary or shadow that runs, or else bring the previous champion back."""
    found = _ledger(home, urls, pipeline, by).rollback(reason)
    click.echo(f"{found['champion']} is the champion, generation {found['generation']}")


@click.command()
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@production_options
def history(pipeline: str, as_json: bool, home: Path, **urls: str | None) -> None:
    """Show what was promoted, tried out and rolled back, the newest first."""
    rows = _ledger(home, urls, pipeline, None).rows()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2))
        return
    console().print(_table(rows))


def _ledger(home: Path, urls: dict[str, str | None], pipeline: str, by: str | None) -> Ledger:
    named = {name.removesuffix("_url"): url for name, url in urls.items()}
    return Ledger(find_production(home, named), pipeline, by or _user())


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "esteira"


def _table(rows: list[Entry]) -> Table:
    names = ("generation", "release", "role", "goes back to", "metric", "by", "when", "reason")
    table = Table(*names, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        cells: list[Any] = [row.generation, row.release_version, _role(row), row.previous_version or "-"]
        cells += [_metric(row), row.by, row.created_at[:19].replace("T", " "), row.reason]
        table.add_row(*(str(cell) for cell in cells))
    return table


def _standing(row: Entry) -> str:
    return "is the champion" if row.share == 1 else f"has a {row.mode} of {row.share:.0%}"


def _role(row: Entry) -> str:
    return row.mode if row.share == 1 else f"{row.mode} {row.share:.0%}"


def _metric(row: Entry) -> str:
    name = next((name for name in MAIN_METRICS if name in row.metrics), None)
    return f"{name} {row.metrics[name]:.4f}" if name else "-"
