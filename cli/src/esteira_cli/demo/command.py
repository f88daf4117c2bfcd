"""`esteira demo`."""

import os
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from esteira.bucket import Bucket
from esteira_cli.demo.narrator import Narrator
from esteira_cli.demo.playground import STACKS, Playground, playground
from esteira_cli.demo.report import DemoReport, draw, summary, write_report
from esteira_cli.demo.services import Services
from esteira_cli.demo.source import DemoSource, Span, parse_span
from esteira_cli.demo.story import DemoFailed, Story
from esteira_cli.stack.commands import state_dir
from esteira_cli.stack.errors import StackError
from esteira_cli.stack.reporting import component_table, console, progress

GOOGLE_VARIABLES = ("PUBSUB_EMULATOR_HOST", "STORAGE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT")
MARK = "demo"
"""The folder of raw files in the stack's own; where it is, the data of the stack are a demo's."""


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
    "--stack",
    "kind",
    default="embedded",
    show_default=True,
    type=click.Choice(STACKS),
    help="Processes of this machine, or the containers of docker-compose.yml, whose folder is STATE_DIR-compose.",
)
@click.option(
    "--months", callback=_span, metavar="4-12", help="The months to replay; all that demo.yaml names if not given."
)
@click.option("--requests", type=click.IntRange(50), help="Requests a month; as many as demo.yaml says if not given.")
@click.option("--exit", "leave", is_flag=True, help="Stop everything at the end; else it stays up until Ctrl-C.")
def demo(home: Path, folder: Path, kind: str, months: Span | None, requests: int | None, leave: bool) -> None:
    """Play a pipeline's year through the whole loop: files, features, model, requests, labels, drift, retraining."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    narrator = Narrator(console())
    stack = playground(kind, home, folder.parent)
    clear(stack)
    started = set[int]()
    with _stopped_in_the_end(stack, started, narrator):
        try:
            report = _play(stack, folder, months, requests, narrator)
            started |= _pids(stack)
            _conclude(report, stack.home, folder.name, narrator)
            if not leave:
                _stay(stack, narrator)
        except KeyboardInterrupt:
            narrator.say("interrupted")


@contextmanager
def _stopped_in_the_end(stack: Playground, started: Collection[int], narrator: Narrator) -> Iterator[None]:
    """Stops the stack however the work ends; what went wrong first is what the user is told as the error."""
    try:
        yield
    except BaseException:
        try:
            _stop(stack, started, narrator)
        except StackError as error:
            narrator.say(str(error))
        raise
    _stop(stack, started, narrator)


def _stop(stack: Playground, started: Collection[int], narrator: Narrator) -> None:
    if _is_replaced(stack, started):
        narrator.say(f"the stack in {stack.home} was stopped and started again by another command: it stays up")
        return
    with progress() as told:
        stack.down(report=told)


def _is_replaced(stack: Playground, started: Collection[int]) -> bool:
    """Whether processes run, and none of those that a demo left running; while nothing is known of it, they are its."""
    running = _pids(stack) if started else set()
    return bool(running) and running.isdisjoint(started)


def _pids(stack: Playground) -> set[int]:
    return {state.pid for state in stack.state() if state.pid} if stack.has_data() else set()


def clear(stack: Playground) -> None:
    """Removes what an earlier demo left in the stack.

    Raises:
        DemoFailed: there are data that no demo brought; they are not touched.
    """
    mark = stack.home / MARK
    if mark.exists():
        stack.down(wipe=True)
    elif stack.has_data():
        raise DemoFailed(
            f"{stack.home} is the folder of a stack with data of its own: give the demo another one with --state-dir, "
            f"or remove those data with `{stack.wipe_command()}`"
        )
    mark.mkdir(parents=True)


def _play(stack: Playground, folder: Path, months: Span | None, requests: int | None, narrator: Narrator) -> DemoReport:
    source = DemoSource(folder, stack.home / MARK)
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
        services=Services(stack, narrator.say),
        bucket=Bucket(environment["BUCKET"], environment["GOOGLE_CLOUD_PROJECT"]),
        narrator=narrator,
        requests=requests or source.plan.requests,
        cache=stack.home / MARK / "frozen",
    )
    return story.play(months or parse_span(source.plan.replay))


def _conclude(report: DemoReport, home: Path, pipeline: str, narrator: Narrator) -> None:
    write_report(report, home / "demo-report.json")
    draw(report, home / "demo-report.png", f"{pipeline}: the champion that retrains against the one that does not")
    narrator.say(summary(report))
    narrator.say(f"report: {home / 'demo-report.json'}, picture: {home / 'demo-report.png'}")


def _stay(stack: Playground, narrator: Narrator) -> None:
    where = stack.addresses()
    narrator.say(f"dashboard  {where['monitor']}/")
    narrator.say(f"MLflow     {where['mlflow']}/")
    narrator.say(f"API docs   {where['predictor']}/docs/")
    narrator.say("everything stays up until Ctrl-C")
    while True:
        time.sleep(3600)
