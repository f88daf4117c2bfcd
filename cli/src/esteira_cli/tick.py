"""`esteira tick`: the timer of the local stack, in the place of Cloud Scheduler.

Each service has a thread of its own, so that calls to one service never overlap and a slow one delays no other.
"""

import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import click

from esteira.logs import configure_logging
from esteira_cli.stack.loopback import post

logger = logging.getLogger(__name__)

CALL_SECONDS = 600.0
Tokens = Callable[[str], str]
"""Makes the token for an audience."""


class Timer:
    """Calls `POST /tasks/reconcile` of services, with a pause after each answer.

    Args:
        services: name → base URL; the base URL is the audience of the token too.
        tokens: signs the tokens.
        every: seconds between an answer and the next call.
    """

    def __init__(self, services: dict[str, str], tokens: Tokens, every: float) -> None:
        self._services = services
        self._tokens = tokens
        self._every = every
        self._stopped = threading.Event()

    def run(self) -> None:
        """Calls until `stop`."""
        for name, url in self._services.items():
            threading.Thread(target=self._repeat, args=(name, url), name=name, daemon=True).start()
        self._stopped.wait()

    def stop(self) -> None:
        """Ends `run`; calls that wait for an answer are left."""
        self._stopped.set()

    def _repeat(self, name: str, url: str) -> None:
        last: str | None = None
        while not self._stopped.wait(self._every):
            problem = self.call(url)
            if problem and problem != last:
                logger.warning("reconcile failed", extra={"called": name, "problem": problem})
            elif last and not problem:
                logger.info("reconcile works again", extra={"called": name})
            last = problem

    def call(self, url: str) -> str | None:
        """Calls one service once, and tells what went wrong."""
        try:
            headers = {"Authorization": f"Bearer {self._tokens(url)}", "Content-Type": "application/json"}
            status = post(f"{url}/tasks/reconcile", b"{}", headers, CALL_SECONDS)
        except (OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return None if 200 <= status < 300 else f"answered {status}"


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
    timer = Timer(_parsed(services), lambda audience: key.sign(audience, service_account), every)
    if once:
        _call_once(timer, _parsed(services))
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: timer.stop())
    timer.run()


def _parsed(services: tuple[str, ...]) -> dict[str, str]:
    wrong = [text for text in services if "=http" not in text]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is not NAME=URL", param_hint="--service")
    return dict(text.split("=", 1) for text in services)


def _call_once(timer: Timer, services: dict[str, str]) -> None:
    problems = {name: problem for name, url in services.items() if (problem := timer.call(url))}
    if problems:
        raise click.ClickException("; ".join(f"{name} {problem}" for name, problem in problems.items()))
