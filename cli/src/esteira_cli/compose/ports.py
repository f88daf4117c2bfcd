"""Ports on loopback at which the containers are reached, chosen once and kept.

A port that the engine chooses would be another one after each start of the container; a client that outlives the
container, as the demo does, would look for it in vain.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from esteira_cli.compose.errors import ComposeError
from esteira_cli.stack.ports import HOST, choose_ports, is_free
from esteira_cli.stack.state import replace_file

SERVICES = ("etl", "trainer", "predictor", "monitor")
WEB = ("bucket", "mlflow", *SERVICES)
PUBLISHED = ("postgres", "pubsub", *WEB)


def settle_ports(file: Path, running: Iterable[str]) -> dict[str, int]:
    """The ports of all published services, written down; those of services that do not run are moved if taken."""
    kept = read_ports(file)
    usable = {name: port for name, port in kept.items() if name in running or is_free(port)}
    chosen = choose_ports(PUBLISHED, usable)
    if chosen != kept:
        replace_file(file, msgspec.json.format(msgspec.json.encode(chosen), indent=2))
    return chosen


def read_ports(file: Path) -> dict[str, int]:
    """The ports that were written down; none where the stack never started.

    Raises:
        ComposeError: the file is there and is not what this version wrote.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, int])
    except FileNotFoundError:
        return {}
    except msgspec.MsgspecError as error:
        raise ComposeError(f"{file} cannot be read: {error}; remove it, and other ports are chosen") from error


def port_variables(ports: Mapping[str, int]) -> dict[str, str]:
    """What docker-compose.yml publishes each service at."""
    return {f"{name.upper()}_PORT": str(port) for name, port in ports.items()}


def addresses(ports: Mapping[str, int]) -> dict[str, str]:
    """Where each service is: URLs, but `host:port` for Postgres and gRPC."""
    web = {name: f"http://{HOST}:{ports[name]}" for name in WEB}
    return {**web, **{name: f"{HOST}:{ports[name]}" for name in ("postgres", "pubsub")}}
