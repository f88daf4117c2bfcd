"""A worker that is killed at a chosen step, in a process of its own: `crash_worker.py SETTINGS`.

Each of the files `killed` is uploaded here and ingested by a child of this process: the first child dies before step 1,
the next before step 2, and so on. A step is a call of the bucket or the publisher, before and after, or a commit of
Postgres. Another child then reconciles until the file is done. The files `calm` are ingested by one child in peace.
Says a line for each file of `killed`, and one for all of `calm`: the exit codes of both children.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from esteira.bucket import Bucket
from esteira.database import make_engine
from esteira.events import Message, RawDataUploaded
from esteira.exceptions import Busy
from esteira.outbox import Relay
from esteira.pushes import Delivery
from etl.attempt import Attempts
from etl.handlers import Handlers
from etl.ingest import Ingestor
from etl.workbench import make_workbenches

LEASE_SECONDS = 0.4
KILLED = 77
TOO_LATE = 60.0


class Steps:
    """Counts steps, and ends the process before the one that is deadly."""

    def __init__(self, deadly: int | None) -> None:
        self.taken = 0
        self._deadly = deadly

    def step(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # a heartbeat, whose number depends on the clock
        self.taken += 1
        if self.taken == self._deadly:
            os._exit(KILLED)

    def around(self, call: Callable[..., Any], *arguments: Any) -> Any:
        self.step()
        result = call(*arguments)
        self.step()
        return result


class SteppingBucket(Bucket):
    """The real bucket, with a step before and after each call."""

    def __init__(self, name: str, steps: Steps) -> None:
        super().__init__(name, "test")
        self._steps = steps

    def upload_once(self, path: str, data: bytes | Path, content_type: str = "application/octet-stream") -> None:
        self._steps.around(super().upload_once, path, data, content_type)

    def read_versioned(self, path: str) -> tuple[bytes, int] | None:
        found: tuple[bytes, int] | None = self._steps.around(super().read_versioned, path)
        return found


class WrittenDown:
    """Takes messages as Pub/Sub does, and writes their ids to a file."""

    def __init__(self, file: Path, steps: Steps) -> None:
        self._file = file
        self._steps = steps

    def publish_many(self, messages: list[Message]) -> list[Exception | None]:
        self._steps.around(self._write, messages)
        return [None for _ in messages]

    def _write(self, messages: list[Message]) -> None:
        with self._file.open("a") as file:
            file.writelines(f"{message.topic} {message.attributes['ce-id']}\n" for message in messages)


def make_handlers(settings: dict[str, str], steps: Steps) -> tuple[Handlers, Engine]:
    engine = make_engine(settings["database_url"], pool_size=4)
    event.listen(engine, "commit", lambda _: steps.step())
    bucket = SteppingBucket(settings["bucket"], steps)
    workbenches = make_workbenches(Path(settings["pipelines"]))
    ingestor = Ingestor(engine, Attempts(engine, bucket, workbenches, 1 << 20), LEASE_SECONDS)
    relay = Relay(engine, WrittenDown(Path(settings["published"]), steps))
    return Handlers(engine, bucket, ingestor, relay, workbenches), engine


def ingest(settings: dict[str, str], uploads: list[RawDataUploaded], deadly: int | None) -> None:
    """Runs in a child: handles the notifications."""
    handlers, _ = make_handlers(settings, Steps(deadly))
    for upload in uploads:
        handlers.receive(upload, Delivery(event_id="1", attributes={}, data=b""))


def recover(settings: dict[str, str], uploaded: RawDataUploaded) -> None:
    """Runs in a child: the timer calls until nothing is left to do."""
    handlers, _ = make_handlers(settings, Steps(None))
    deadline = time.monotonic() + TOO_LATE
    while time.monotonic() < deadline:
        handlers.reconcile()
        found = handlers.ingestions(uploaded.object.split("/")[1])
        if any(row["object"] == uploaded.object and row["status"] == "done" for row in found):
            return
        time.sleep(0.05)
    raise Busy("the file was not recovered")


def in_child(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def upload(bucket: str, path: str, text: str) -> RawDataUploaded:
    generation = Bucket(bucket, "test").write_if(path, text.encode(), None)
    return RawDataUploaded(bucket=bucket, object=path, generation=generation)


def main() -> None:
    settings = json.loads(sys.argv[1])
    for deadly, item in enumerate(settings["killed"], 1):
        uploaded = upload(settings["bucket"], *item)
        code = in_child(partial(ingest, settings, [uploaded], deadly))
        recovered = in_child(partial(recover, settings, uploaded)) if code else 0
        sys.stdout.write(f"{code} {recovered}\n")
    calm = [upload(settings["bucket"], *item) for item in settings["calm"]]
    sys.stdout.write(f"{in_child(partial(ingest, settings, calm, None))} 0\n")


if __name__ == "__main__":
    main()
