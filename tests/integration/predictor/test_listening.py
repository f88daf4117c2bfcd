import socket
import subprocess

import pytest

from predictor.listening import begin_no_more, holds


def test_what_is_begun_can_be_accepted_and_nothing_else_is_begun() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address) as begun:
            begin_no_more(listener.fileno())
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.2)
            accepted, _ = listener.accept()
            with accepted:
                begun.sendall(b"?")
                assert accepted.recv(1) == b"?"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)


@pytest.mark.parametrize("is_passed_on", [True, False])
def test_a_process_holds_a_socket_that_was_passed_on_to_it(is_passed_on: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        passed = [listener.fileno()] if is_passed_on else []
        with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, pass_fds=passed) as process:
            assert holds(process.pid, listener.fileno()) == is_passed_on


def test_a_process_that_cannot_be_seen_is_taken_to_hold_a_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, subprocess.Popen(["/bin/true"]) as process:
        process.wait()
        assert holds(process.pid, listener.fileno())
