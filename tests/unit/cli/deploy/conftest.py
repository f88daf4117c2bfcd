"""A Cloud Run of the test's own: the fake gcloud, and a server that answers as each revision does."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from werkzeug.serving import make_server
from werkzeug.wrappers import Request

from fake_cloud import FAKE, Cloud, Deploy, image
from pages import ROOT


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    made = Cloud(tmp_path)
    server = make_server("127.0.0.1", 0, Request.application(made.answer), threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def deploy(cloud: Cloud) -> Deploy:
    """Calls `esteira deploy` in a process of its own."""
    programs = cloud.folder / "bin"
    programs.mkdir()
    program = programs / "gcloud"
    program.write_text(f"#!{sys.executable} -IS\n{FAKE.read_text()}")
    program.chmod(0o755)
    environ = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "HOME": str(cloud.folder),
        "FAKE_GCLOUD_STATE": str(cloud.state),
        "FAKE_GCLOUD_LOG": str(cloud.folder / "log"),
        "FAKE_BASE_URL": cloud.url,
        "GCP_PROJECT": "acme-ml",
        "GCP_PROJECT_NUMBER": "123456789",
        "GCP_REGION": "europe-west1",
        "GITHUB_REPOSITORY": "acme/esteira",
        "GITHUB_STEP_SUMMARY": str(cloud.folder / "summary.md"),
    }

    def call(service: str, commit: str, *options: str, **changes: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "esteira_cli.main", "deploy", service, "--image", image(service, commit)]
        return subprocess.run(
            [*command, "--root", str(ROOT), *options],
            env={name: value for name, value in {**environ, **changes}.items() if value},
            capture_output=True,
            text=True,
            timeout=60,
            cwd=os.sep,
        )

    return call
