"""The demo as a client of the running services: patient, for any of them may be killed and started again."""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import requests

from esteira.exceptions import Unavailable
from esteira_cli.demo.playground import Playground

T = TypeVar("T")
Say = Callable[[str], None]

PATIENCE_S = 600.0
POLL_S = 0.1
SILENCE_S = 5.0
"""After so long without an answer the user is told which service it is, and what to do."""


class Services:
    """HTTP calls to the services of a running stack; threads may share it."""

    def __init__(self, stack: Playground, say: Say) -> None:
        self._addresses = stack.addresses()
        self._stack = stack
        self._say = say
        self._local = threading.local()
        self._complained: dict[str, float] = {}
        self._lock = threading.Lock()

    def get(self, service: str, path: str) -> Any:
        """The JSON answer of `GET path`, None for 404; waits while the service is down."""
        return self._call(service, "GET", path, None, {})

    def get_afresh(self, service: str, path: str) -> Any:
        """As `get`, over a connection of its own, so that any worker of the service may answer."""
        return self._call(service, "GET", path, None, {"Connection": "close"})

    def post(self, service: str, path: str, body: Any) -> Any:
        """The JSON answer of `POST path`, None for 404; sent again while the service is down."""
        return self._call(service, "POST", path, body, {})

    def wait_for(self, what: str, look: Callable[[], T | None]) -> T:
        """Looks until it finds something.

        Raises:
            Unavailable: it found nothing for `PATIENCE_S`.
        """
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = look()
            if found is not None:
                return found
            time.sleep(POLL_S)
        raise Unavailable(f"waited {PATIENCE_S:.0f} s in vain for {what}: see `{self.logs_command('NAME')}`")

    def logs_command(self, service: str) -> str:
        """What a user says to see what a service wrote."""
        return self._stack.logs_command(service)

    def _call(self, service: str, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        began, url = time.monotonic(), self._addresses[service] + path
        while time.monotonic() < began + PATIENCE_S:
            try:
                response = self._session().request(method, url, json=body, headers=headers, timeout=30)
            except requests.RequestException as error:
                self._complain(service, began, type(error).__name__)
            else:
                if response.status_code < 500:
                    return _answer(service, response)
                self._complain(service, began, response.text)
            time.sleep(POLL_S)
        raise Unavailable(f"{service} has not answered for {PATIENCE_S:.0f} s: see `{self.logs_command(service)}`")

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.trust_env = False
        session: requests.Session = self._local.session
        return session

    def _complain(self, service: str, began: float, why: str) -> None:
        now = time.monotonic()
        with self._lock:
            due = now - began > SILENCE_S and now - self._complained.get(service, 0) > 30
            if due:
                self._complained[service] = now
        if due:
            start = self._stack.start_command(service)
            self._say(f"{service} does not answer ({why[:120]}); if it is down, `{start}` starts it again")


def _answer(service: str, response: requests.Response) -> Any:
    if response.status_code == 404:
        return None
    if not response.ok:
        raise Unavailable(f"{service} answered {response.status_code}: {response.text[:500]}")
    return response.json()
