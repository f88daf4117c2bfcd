"""`esteira pubsub`."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from esteira_cli.pubsub.emulator import Settings

logger = logging.getLogger(__name__)


@click.command("pubsub")
@click.option("--state-dir", type=click.Path(path_type=Path), required=True, help="Folder for messages and the key.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8085, show_default=True, help="gRPC port, as in PUBSUB_EMULATOR_HOST; 0: any free one.")
@click.option("--http-port", default=8086, show_default=True, help="Port for health, status, faults and certificates.")
@click.option("--duplicate", type=click.FloatRange(0, 1), default=0.0, help="Share of messages to deliver twice.")
@click.option("--delay", default="0", help="Seconds to hold each message, as 0.5 or 0.1:2.")
@click.option("--reorder", is_flag=True, help="Shuffle messages.")
def pubsub(state_dir: Path, host: str, port: int, http_port: int, duplicate: float, delay: str, reorder: bool) -> None:
    """Run the strict Pub/Sub emulator until SIGTERM or Ctrl-C.

    Clients find it by PUBSUB_EMULATOR_HOST=HOST:PORT. What was published survives kill -9.
    """
    from esteira_cli.pubsub.emulator import Settings
    from esteira_cli.pubsub.exceptions import InvalidArgument
    from esteira_cli.pubsub.faults import Faults, parse_delay

    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        faults = Faults(duplicate, parse_delay(delay), reorder)
    except InvalidArgument as error:
        raise click.BadParameter(str(error), param_hint="--delay") from error
    _serve(Settings(state_dir, host, port, http_port, faults))


def _serve(settings: Settings) -> None:
    from esteira_cli.pubsub.emulator import Emulator
    from esteira_cli.pubsub.exceptions import StateLocked

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        emulator = Emulator(settings)
    except (StateLocked, OSError, RuntimeError, ValueError) as error:
        raise click.ClickException(f"The Pub/Sub emulator cannot start: {error}") from error
    emulator.start()
    click.echo(
        f"Pub/Sub is ready on {settings.host}:{emulator.port}, admin on http://{settings.host}:{emulator.http_port}"
    )
    stop.wait()
    emulator.stop()
    click.echo("Pub/Sub has stopped")
