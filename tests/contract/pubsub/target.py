"""The two emulators under contract: how to find, start and talk to them."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import grpc
import requests
from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.pubsub_v1 import PublisherClient as GeneratedPublisher
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

PROJECT = "contract"


class Process:
    """A program with its output in a file; killed for good by `stop`."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, env={**os.environ, **(env or {})}, start_new_session=True
            )

    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_for_port(self, port: int, timeout_s: float = 30.0) -> None:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and self.alive():
            with socket.socket() as probe:
                probe.settimeout(0.5)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"nothing listens on port {port}:\n{self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """kill -9."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def terminate(self) -> int:
        """SIGTERM, and the exit status."""
        self._process.terminate()
        return self._process.wait(timeout=15)

    def stop(self) -> None:
        if self.alive():
            self.kill()


class Target:
    """A running emulator, with the real clients connected to it."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{port}",
            options=[("grpc.max_receive_message_length", -1), ("grpc.initial_reconnect_backoff_ms", 50)],
        )
        self.publisher = pubsub_v1.PublisherClient(transport=PublisherGrpcTransport(channel=self._channel))
        self.subscriber = pubsub_v1.SubscriberClient(transport=SubscriberGrpcTransport(channel=self._channel))

    def topic(self) -> str:
        """Creates a topic and returns its name."""
        name = f"projects/{PROJECT}/topics/t-{uuid.uuid4().hex[:12]}"
        self.publisher.create_topic(name=name)
        return name

    def subscription(self, topic: str, endpoint: str = "", **options: Any) -> str:
        """Creates a subscription, a push one with an `endpoint`, and returns its name."""
        name = f"projects/{PROJECT}/subscriptions/s-{uuid.uuid4().hex[:12]}"
        push = {"push_config": {"push_endpoint": endpoint}} if endpoint else {}
        self.subscriber.create_subscription(request={"name": name, "topic": topic, **push, **options})
        return name

    def publish(self, topic: str, *payloads: bytes, **attributes: str) -> list[str]:
        """Publishes in one request and returns the ids."""
        messages = [{"data": data, "attributes": attributes} for data in payloads]
        response = GeneratedPublisher.publish(
            self.publisher, request={"topic": topic, "messages": messages}, timeout=10, retry=None
        )
        return list(response.message_ids)

    def pull(self, subscription: str, count: int = 1, timeout_s: float = 10.0) -> list[Any]:
        """Pulls until there are `count` messages or the time is over."""
        received: list[Any] = []
        end = time.monotonic() + timeout_s
        while len(received) < count and (left := end - time.monotonic()) > 0:
            request = {"subscription": subscription, "max_messages": count - len(received)}
            try:
                response = self.subscriber.pull(request=request, timeout=left, retry=None)
            except exceptions.DeadlineExceeded:
                break
            received += response.received_messages
        return received

    def acknowledge(self, subscription: str, received: Sequence[Any]) -> None:
        self.subscriber.acknowledge(subscription=subscription, ack_ids=[message.ack_id for message in received])

    def release(self, subscription: str, received: Sequence[Any], seconds: int = 0) -> None:
        ack_ids = [message.ack_id for message in received]
        self.subscriber.modify_ack_deadline(subscription=subscription, ack_ids=ack_ids, ack_deadline_seconds=seconds)

    def close(self) -> None:
        self._channel.close()


class Ours:
    """Our emulator as a process that can be killed and started again on the same state."""

    def __init__(self, folder: Path, *switches: str) -> None:
        self.state_dir = folder / "state"
        self._log = folder / "emulator.log"
        self._switches = switches
        self.port, self.http_port = free_port(), free_port()
        self.start()
        self.target = Target("esteira", self.port)
        self.url = f"http://127.0.0.1:{self.http_port}"

    def start(self) -> None:
        ports = ["--port", str(self.port), "--http-port", str(self.http_port)]
        command = [sys.executable, "-m", "esteira_cli.pubsub", "--state-dir", str(self.state_dir), *ports]
        self.process = Process([*command, *self._switches], self._log)
        self.process.wait_for_port(self.http_port)

    def restart(self) -> None:
        """kill -9, and start again."""
        self.process.stop()
        self.start()
        self.target.close()
        self.target = Target("esteira", self.port)

    def status(self, subscription: str) -> dict[str, Any]:
        found = requests.get(f"{self.url}/status", timeout=5).json()["subscriptions"][subscription]
        return cast("dict[str, Any]", found)

    def set_faults(self, **faults: Any) -> None:
        requests.put(f"{self.url}/faults", json=faults, timeout=5).raise_for_status()

    def close(self) -> None:
        self.target.close()
        self.process.stop()


def google_emulator_home() -> Path | None:
    """Finds Google's emulator: PUBSUB_EMULATOR_HOME, or inside the Google Cloud CLI that is on PATH."""
    candidates = [Path(os.environ["PUBSUB_EMULATOR_HOME"])] if "PUBSUB_EMULATOR_HOME" in os.environ else []
    gcloud = shutil.which("gcloud")
    if gcloud:
        candidates.append(_sdk_root(Path(gcloud).resolve()) / "platform" / "pubsub-emulator")
    usable = [home for home in candidates if (home / "bin" / "cloud-pubsub-emulator").is_file()]
    return usable[0] if usable and shutil.which("java") else None


def _sdk_root(gcloud: Path) -> Path:
    """Distributions put a small script on PATH that names the real folder."""
    if not (gcloud.parent.parent / "platform").is_dir():
        named = re.search(r"(/\S*google-cloud-sdk)\b", gcloud.read_text(errors="replace"))
        return Path(named.group(1)) if named else gcloud.parent.parent
    return gcloud.parent.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
