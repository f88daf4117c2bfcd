"""The timer: `POST /tasks/reconcile` of services, again and again, in the place of Cloud Scheduler.

`python -m esteira.timer --service etl=http://etl:8080 --every 2` sends no token, for services that ask for none.
Each service has a thread of its own, so that calls to one service never overlap and a slow one delays no other.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

import requests

from esteira.logs import configure_logging

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
CALL_SECONDS = 600.0
Tokens = Callable[[str], str]
"""Makes the token for an audience."""


class Timer:
    """Calls `POST /tasks/reconcile` of services, with a pause after each answer.

    Args:
        services: name → base URL; the base URL is the audience of the token too.
        tokens: signs the tokens; None sends none.
        every: seconds between an answer and the next call.
    """

    def __init__(self, services: Mapping[str, str], tokens: Tokens | None, every: float) -> None:
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
            headers = {"Content-Type": "application/json", **self._authorization(url)}
            status = _post(f"{url}/tasks/reconcile", headers)
        except (OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return None if 200 <= status < 300 else f"answered {status}"

    def _authorization(self, url: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._tokens(url)}"} if self._tokens else {}


def _post(url: str, headers: Mapping[str, str]) -> int:
    with requests.Session() as session:
        session.trust_env = False  # the services are near: no proxy of the environment
        timeout = (CONNECT_SECONDS, CALL_SECONDS)
        return session.post(url, data=b"{}", headers=headers, timeout=timeout, allow_redirects=False).status_code


def parse_service(text: str) -> tuple[str, str]:
    """Reads `name=http://host:port`.

    Raises:
        ValueError: it has another form.
    """
    name, _, url = text.partition("=")
    if not name or not url.startswith(("http://", "https://")):
        raise ValueError(f"{text!r} is not NAME=URL, such as etl=http://etl:8080")
    return name, url.rstrip("/")


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Calls the services of the command line until SIGTERM or SIGINT."""
    options = _parser().parse_args(arguments)
    configure_logging("timer", environ.get("LOG_LEVEL") or "info", environ.get("GOOGLE_CLOUD_PROJECT"))
    timer = Timer(dict(options.service), None, options.every)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: timer.stop())
    timer.run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m esteira.timer", description=__doc__)
    parser.add_argument(
        "--service", action="append", required=True, type=_service, metavar="NAME=URL", help="may be repeated"
    )
    parser.add_argument("--every", default=2.0, type=_seconds, metavar="SECONDS", help="pause after each answer")
    return parser


def _service(text: str) -> tuple[str, str]:
    try:
        return parse_service(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and 3600 seconds")
    return seconds


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
