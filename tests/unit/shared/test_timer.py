"""The timer calls each service, with a token where it has a signer, one call at a time."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from esteira.timer import Timer, parse_service

pytestmark = pytest.mark.enable_socket


class Service(ThreadingHTTPServer):
    """A service that notes what it is asked, and how many calls it answers at once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.hold = 0.0
        self.asked: list[tuple[str, str | None]] = []
        self.busy = 0
        self.most_busy = 0
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        service = self.server
        service.busy += 1
        service.most_busy = max(service.most_busy, service.busy)
        service.asked.append((self.path, self.headers["Authorization"]))
        time.sleep(service.hold)
        service.busy -= 1
        self.send_response(service.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def test_a_call_carries_a_token_for_the_service(service: Service) -> None:
    assert _timer(service).call(service.url) is None
    assert service.asked == [("/tasks/reconcile", f"Bearer token for {service.url}")]


def test_a_call_without_a_signer_carries_no_token(service: Service) -> None:
    assert Timer({}, None, 1.0).call(service.url) is None
    assert service.asked == [("/tasks/reconcile", None)]


def test_a_refusal_is_told_and_does_not_raise(service: Service) -> None:
    service.status = 503
    assert _timer(service).call(service.url) == "answered 503"


def test_a_service_that_is_down_is_told_and_does_not_raise() -> None:
    problem = Timer({}, str, 1.0).call("http://127.0.0.1:1")
    assert problem is not None
    assert "refused" in problem


def test_calls_to_a_slow_service_never_overlap(service: Service) -> None:
    service.hold = 0.05
    timer = _timer(service)
    thread = threading.Thread(target=timer.run)
    thread.start()
    _await(lambda: len(service.asked) >= 4)
    timer.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert service.most_busy == 1


def test_the_command_calls_until_it_is_told_to_stop(service: Service) -> None:
    command = [sys.executable, "-m", "esteira.timer", "--service", f"etl={service.url}/", "--every", "0.1"]
    with subprocess.Popen(command) as process:
        _await(lambda: len(service.asked) >= 2, seconds=30.0)
        process.terminate()
        assert process.wait(10) == 0
    assert set(service.asked) == {("/tasks/reconcile", None)}


@pytest.mark.parametrize("text", ["etl", "=http://etl", "etl=etl:8080", "http://etl:8080"])
def test_a_service_without_name_or_address_is_refused_with_the_form_that_is_right(text: str) -> None:
    with pytest.raises(ValueError, match="is not NAME=URL"):
        parse_service(text)


def _timer(service: Service) -> Timer:
    return Timer({"etl": service.url}, lambda audience: f"token for {audience}", 0.001)


def _await(met: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.005)
