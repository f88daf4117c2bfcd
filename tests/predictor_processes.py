"""The predictor's processes, run as a container runs them."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import psutil
from google.cloud.pubsub_v1 import SubscriberClient

from esteira.events import PredictionsServed, decode
from releases import raw_rows

DEADLINE = 40.0
WORKERS = 2
PREDICT = "/pipelines/shop/predict"
BODY = json.dumps({"rows": raw_rows(1)}).encode()
JSON = {"Content-Type": "application/json"}


def wait_until(check: Callable[[], bool]) -> None:
    """Fails where it does not become true in time."""
    deadline = time.monotonic() + DEADLINE
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Server:
    """A real server with two workers."""

    def __init__(self, environ: dict[str, str], log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        self.url, self.log = f"http://127.0.0.1:{port}", log
        self.answered: dict[str, float] = {}
        argv = [sys.executable, "-m", "predictor.server"]
        with log.open("w") as file:
            self.process = subprocess.Popen(
                argv, env={**environ, "PORT": str(port)}, stdout=file, stderr=subprocess.STDOUT
            )

    def predict(self) -> dict[str, object]:
        """Asks once, and remembers the answer."""
        found = self._fetch(PREDICT, BODY)
        self.remember(found)
        return found

    def remember(self, answer: dict[str, Any]) -> None:
        """Keeps id and score of its predictions."""
        self.answered |= {one["prediction_id"]: one["score"] for one in answer["predictions"]}

    def describe(self) -> dict[str, object]:
        """What it says of the pipeline."""
        return self._fetch("/pipelines/shop")

    def _fetch(self, path: str, body: bytes | None = None) -> dict[str, object]:
        request = Request(f"{self.url}{path}", body, JSON)  # noqa: S310
        with urlopen(request, timeout=10) as answer:  # noqa: S310
            found: dict[str, object] = json.load(answer)
        return found

    def is_ready(self, times: int = 1) -> bool:
        """Whether each worker has its release, and they listen; so often, where they were killed."""
        return self.log.read_text().count("release in service") >= times * WORKERS and self.status() == 200

    def status(self) -> int | None:
        """Of `/health/ready`; None while nobody answers."""
        try:
            with urlopen(f"{self.url}/health/ready", timeout=5) as answer:  # noqa: S310
                return int(answer.status)
        except HTTPError as error:
            with error:
                return error.code
        except OSError:
            return None

    def keeper(self) -> psutil.Process | None:
        """The process that talks to the cloud."""
        return next(filter(_is_keeper, self._children()), None)

    def workers(self) -> list[psutil.Process]:
        """The processes that answer."""
        keeper = self.keeper()
        return [worker for child in self._children() if child != keeper for worker in child.children()]

    def _children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def stop(self) -> float:
        """Tells it to end; gives the seconds that it took."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=20)
        return time.monotonic() - begun


def _is_keeper(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):  # it has just died
        return "predictor.keeper" in process.cmdline()
    return False


def environment(bucket: str, project: str, folder: Path) -> dict[str, str]:
    """What a server is told; its log is published when it ends, or when much waits."""
    return {
        **os.environ,
        "HOST": "127.0.0.1",
        "WEB_CONCURRENCY": str(WORKERS),
        "GOOGLE_CLOUD_PROJECT": project,
        "BUCKET": bucket,
        "PUSH_AUTHENTICATION": "none",
        "CACHE_DIR": str(folder / "cache"),
        "POINTER_POLL_SECONDS": "0.2",
        "LOG_FLUSH_SECONDS": "60",
    }


def read_log(subscriber: SubscriberClient, subscription: str, number: int) -> dict[str, float]:
    """Id and score of the predictions that were logged, once there are so many."""
    logged: dict[str, float] = {}
    deadline = time.monotonic() + DEADLINE
    while len(logged) < number and time.monotonic() < deadline:
        pulled = subscriber.pull(subscription=subscription, max_messages=100, timeout=10)
        for received in pulled.received_messages:
            event = decode(PredictionsServed, received.message.data, dict(received.message.attributes))
            logged |= {str(prediction.id): prediction.score for prediction in event.predictions}
    return logged


class Clients:
    """Ask without a pause, on a new connection each time, until nobody listens any more.

    Attributes:
        answers: how many each had.
        broken: what went wrong.
    """

    def __init__(self, server: Server, number: int) -> None:
        self.answers = [0] * number
        self.broken: list[str] = []
        self._server = server
        self._threads = [threading.Thread(target=self._ask, args=(client,)) for client in range(number)]
        for thread in self._threads:
            thread.start()

    def _ask(self, client: int) -> None:
        while True:
            try:
                self._server.predict()
                self.answers[client] += 1
            except URLError as error:
                if not isinstance(error.reason, ConnectionRefusedError):
                    self.broken.append(repr(error.reason))
                return
            except OSError as error:
                self.broken.append(repr(error))
                return

    def join(self) -> None:
        """Waits until all have ended."""
        for thread in self._threads:
            thread.join(DEADLINE)


class KeptClients(Clients):
    """Ask without a pause, each on a connection that it keeps, until an answer says `Connection: close`."""

    def _ask(self, client: int) -> None:
        with closing(HTTPConnection(self._server.url.removeprefix("http://"), timeout=10)) as connection:
            try:
                while not self._is_sent_away(connection):
                    self.answers[client] += 1
            except (OSError, HTTPException) as error:
                self.broken.append(repr(error))

    def _is_sent_away(self, connection: HTTPConnection) -> bool:
        connection.request("POST", PREDICT, BODY, JSON)
        with connection.getresponse() as answer:
            self._server.remember(json.load(answer))
        return answer.headers["Connection"] == "close"
