"""`esteira demo`."""

import os
import signal
import time
from pathlib import Path

import click

from esteira.bucket import Bucket
from esteira_cli.demo.narrator import Narrator
from esteira_cli.demo.report import DemoReport, draw, summary, write_report
from esteira_cli.demo.services import Services
from esteira_cli.demo.source import DemoSource, Span, parse_span
from esteira_cli.demo.story import DemoFailed, Story
from esteira_cli.stack.commands import state_dir
from esteira_cli.stack.reporting import component_table, console, progress
from esteira_cli.stack.stack import Stack

GOOGLE_VARIABLES = ("PUBSUB_EMULATOR_HOST", "STORAGE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT")


def _span(_: click.Context, __: click.Parameter, text: str | None) -> Span | None:
    try:
        return parse_span(text) if text else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@state_dir
@click.option(
    "--pipeline",
    "folder",
    default="pipelines/flights",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="A pipeline with a demo.yaml.",
)
@click.option(
    "--months", callback=_span, metavar="4-12", help="The months to replay; all that demo.yaml names if not given."
)
@click.option("--requests", type=click.IntRange(50), help="Requests a month; as many as demo.yaml says if not given.")
@click.option("--exit", "leave", is_flag=True, help="Stop everything at the end; else it stays up until Ctrl-C.")
def demo(home: Path, folder: Path, months: Span | None, requests: int | None, leave: bool) -> None:
    """Play a pipeline's year through the whole loop: files, features, model, requests, labels, drift, retraining."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    narrator = Narrator(console())
    stack = _fresh_stack(home, folder)
    try:
        report = _play(stack, folder, months, requests, narrator)
        _conclude(report, home, folder.name, narrator)
        if not leave:
            _stay(stack, narrator)
    except KeyboardInterrupt:
        narrator.say("interrupted")
    finally:
        with progress() as told:
            stack.down(report=told)


def _fresh_stack(home: Path, folder: Path) -> Stack:
    """The stack, without what an earlier demo left in it; data that no demo brought are not touched."""
    stack = Stack(home, folder.parent)
    if (home / "demo").exists():
        stack.down(wipe=True)
    elif (home / "stack.json").exists():
        raise DemoFailed(
            f"{home} holds a stack with data of its own: give the demo another folder with --state-dir, "
            "or remove that one with `esteira down --wipe`"
        )
    (home / "demo").mkdir(parents=True)
    return stack


def _play(stack: Stack, folder: Path, months: Span | None, requests: int | None, narrator: Narrator) -> DemoReport:
    source = DemoSource(folder, stack.home / "demo")
    narrator.say(f"starting the stack in {stack.home}")
    with progress() as told:
        states = stack.up(report=told)
    narrator.say(component_table(states))
    environment = stack.environment("etl")
    os.environ |= {name: environment[name] for name in GOOGLE_VARIABLES}
    with narrator.stage(f"cutting {source.plan.file} of {source.plan.package} into months"):
        source.prepare()
    story = Story(
        source=source,
        services=Services(stack.addresses(), narrator.say),
        bucket=Bucket(environment["BUCKET"], environment["GOOGLE_CLOUD_PROJECT"]),
        narrator=narrator,
        requests=requests or source.plan.requests,
        cache=stack.home / "demo" / "frozen",
    )
    return story.play(months or parse_span(source.plan.replay))


def _conclude(report: DemoReport, home: Path, pipeline: str, narrator: Narrator) -> None:
    write_report(report, home / "demo-report.json")
    draw(report, home / "demo-report.png", f"{pipeline}: the champion that retrains against the one that does not")
    narrator.say(summary(report))
    narrator.say(f"report: {home / 'demo-report.json'}, picture: {home / 'demo-report.png'}")


def _stay(stack: Stack, narrator: Narrator) -> None:
    where = stack.addresses()
    narrator.say(f"dashboard  {where['monitor']}/")
    narrator.say(f"MLflow     {where['mlflow']}/")
    narrator.say(f"API docs   {where['predictor']}/docs/")
    narrator.say("everything stays up until Ctrl-C")
    while True:
        time.sleep(3600)
