"""Puts the emulator together."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc

from esteira_cli.pubsub.admin import AdminServer
from esteira_cli.pubsub.database import Database
from esteira_cli.pubsub.definitions import parse_subscription
from esteira_cli.pubsub.faults import Faults, FaultSwitch
from esteira_cli.pubsub.publisher import Publisher
from esteira_cli.pubsub.push import PushService
from esteira_cli.pubsub.resources import Resources
from esteira_cli.pubsub.store import Store
from esteira_cli.pubsub.subscriber import Subscriber
from esteira_cli.pubsub.tokens import load_signing_key
from esteira_cli.pubsub.wakeups import Wakeups

THREADS = 96
MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Above Pub/Sub's own limit, so that a message too big is refused with its words and not with gRPC's."""
GRACE_S = 3.0


@dataclass(frozen=True)
class Settings:
    """Where the emulator listens and keeps its state."""

    state_dir: Path
    host: str
    port: int
    """gRPC; 0 takes a free one."""
    http_port: int
    """Health, status, faults, keys; 0 takes a free one."""
    faults: Faults


class Emulator:
    """The whole emulator: opened on construction, serving from `start` to `stop`."""

    def __init__(self, settings: Settings) -> None:
        self._database = Database(settings.state_dir)
        key = load_signing_key(settings.state_dir)
        faults = FaultSwitch(settings.faults)
        wakeups = Wakeups()
        resources = Resources(self._database, parse_subscription)
        store = Store(self._database, resources, wakeups, faults)
        self._push = PushService(store, resources, wakeups, key)
        self._subscriber = Subscriber(store, resources, wakeups, self._push.refresh)
        self._server = _server(Publisher(store, resources).handler(), self._subscriber.handler())
        self.port: int = self._server.add_insecure_port(f"{settings.host}:{settings.port}")
        self._admin = AdminServer(settings.host, settings.http_port, self._database, faults, key)
        self.http_port = self._admin.port

    def start(self) -> None:
        """Starts to serve and to deliver."""
        self._server.start()
        self._push.start()
        self._admin.start()

    def stop(self) -> None:
        """Stops taking calls, waits briefly for what is under way, closes the state."""
        self._subscriber.stop()
        stopped = self._server.stop(GRACE_S)
        self._push.stop(GRACE_S)
        stopped.wait()
        self._admin.stop()
        self._database.close()


def _server(*handlers: grpc.GenericRpcHandler) -> grpc.Server:
    options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0)]
    server = grpc.server(ThreadPoolExecutor(THREADS, thread_name_prefix="grpc"), options=options)
    server.add_generic_rpc_handlers(handlers)
    return server
