import socket

import pytest

from predictor.listening import begin_no_more


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
