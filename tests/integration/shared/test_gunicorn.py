import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

DEADLINE = 20.0
APP = """
import time
from esteira.logs import configure_logging
from esteira.web import create_base_app

def create():
    configure_logging("slow", "info", "project")
    app = create_base_app("slow", None)

    @app.get("/slow")
    def slow():
        app.logger.warning("slow request started")
        time.sleep(1.5)
        return {"done": True}

    return app
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_live(port: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            urlopen(f"http://127.0.0.1:{port}/health/live", timeout=2).close()
        except URLError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def wait_for_text(file: Path, text: str, times: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while file.read_text().count(text) < times:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_finishes_what_is_in_flight_and_logs_json_alone(tmp_path):
    (tmp_path / "slow_app.py").write_text(APP)
    port, answers, log = free_port(), [], tmp_path / "log"
    command = [sys.executable, "-m", "gunicorn", "-c", "python:esteira.gunicorn", "slow_app:create()"]
    environ = {**os.environ, "HOST": "127.0.0.1", "PORT": str(port)}
    with log.open("w") as out:
        server = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=out, stderr=subprocess.STDOUT)

    def ask() -> None:
        with urlopen(f"http://127.0.0.1:{port}/slow", timeout=DEADLINE) as response:
            answers.append(json.load(response))

    try:
        wait_until_live(port)
        clients = [threading.Thread(target=ask) for _ in range(3)]
        for client in clients:
            client.start()
        wait_for_text(log, "slow request started", 3)
        server.send_signal(signal.SIGTERM)
        for client in clients:
            client.join(DEADLINE)
        assert server.wait(DEADLINE) == 0
    finally:
        server.kill()
        server.wait()
    assert answers == [{"done": True}] * 3
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(line["severity"] and line["message"] for line in lines)
    assert not any(line["logger"] == "gunicorn.access" for line in lines)
