"""`esteira tick`: the timer of the local stack, which signs its calls as the stack's Pub/Sub signs its pushes."""

import signal
from pathlib import Path

import click

from esteira.logs import configure_logging
from esteira.timer import Timer, parse_service


@click.command()
@click.option("--service", "services", multiple=True, required=True, metavar="NAME=URL", help="May be repeated.")
@click.option("--every", default=2.0, show_default=True, type=click.FloatRange(0.1), help="Seconds between calls.")
@click.option(
    "--keys",
    required=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The state folder of the Pub/Sub emulator, whose key signs the tokens.",
)
@click.option("--service-account", required=True, metavar="EMAIL", help="Who the tokens say is calling.")
@click.option("--once", is_flag=True, help="Call each service once, and fail where one fails.")
def tick(services: tuple[str, ...], every: float, keys: Path, service_account: str, once: bool) -> None:
    """Call the services' reconciliation, again and again."""
    from esteira_cli.pubsub.tokens import load_signing_key

    configure_logging("tick", "info")
    key = load_signing_key(keys)
    called = _parsed(services)
    timer = Timer(called, lambda audience: key.sign(audience, service_account), every)
    if once:
        _call_once(timer, called)
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: timer.stop())
    timer.run()


def _parsed(services: tuple[str, ...]) -> dict[str, str]:
    try:
        return dict(parse_service(text) for text in services)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--service") from error


def _call_once(timer: Timer, services: dict[str, str]) -> None:
    problems = {name: problem for name, url in services.items() if (problem := timer.call(url))}
    if problems:
        raise click.ClickException("; ".join(f"{name} {problem}" for name, problem in problems.items()))
