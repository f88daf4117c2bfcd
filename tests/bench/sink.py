"""Takes what the predictor publishes, as Pub/Sub would on machines of its own: python tests/bench/sink.py

It keeps nothing and counts everything, so that little of the measured machine's time is its own. Says its address, then
for each line of standard input how many messages, bytes and predictions it has taken.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, Self

import grpc
from google.pubsub_v1.types import PublishRequest, PublishResponse

from esteira.publisher import MAX_BYTES

SERVICE = "google.pubsub.v1.Publisher"
IDENTITY = b'{"id":"'
"""Begins each prediction of an event, and nothing else in it."""


class Sink:
    """A sink in a process of its own."""

    def __enter__(self) -> Self:
        command, pipe = [sys.executable, __file__], subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.address = self._ask("")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def predictions(self) -> int:
        """How many it has taken so far."""
        return int(self._ask("\n").split()[2])

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


class Taken:
    """What was taken."""

    def __init__(self) -> None:
        self._ids = count(1)
        self.messages = self.bytes = self.predictions = 0

    def publish(self, data: bytes, _: grpc.ServicerContext) -> bytes:
        """Answers a serialized `PublishRequest`; one thread serves all."""
        messages = PublishRequest.pb().FromString(data).messages
        self.messages += len(messages)
        self.bytes += len(data)
        self.predictions += sum(message.data.count(IDENTITY) for message in messages)
        ids = [str(next(self._ids)) for _ in messages]
        answer: bytes = PublishResponse.pb()(message_ids=ids).SerializeToString()
        return answer


def main() -> None:
    taken = Taken()
    handler: Any = grpc.method_handlers_generic_handler(
        SERVICE, {"Publish": grpc.unary_unary_rpc_method_handler(taken.publish)}
    )
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.max_receive_message_length", 2 * MAX_BYTES)])
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    for _ in sys.stdin:
        print(taken.messages, taken.bytes, taken.predictions, flush=True)
    server.stop(0)


if __name__ == "__main__":
    main()
