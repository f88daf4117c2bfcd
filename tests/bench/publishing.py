"""Measures how many predictions a second the keeper publishes of one worker: python tests/bench/publishing.py

The spool is written first; Pub/Sub is a sink on the same machine, so that the answer of a real one comes on top.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from sink import Sink

from esteira.publisher import Publisher
from predictor.memory import MALLOC, set_malloc
from predictor.publishing import SpoolPublisher
from predictor.spool import Header, SpoolWriter

PREDICTION = b'{"id":"0b7c9a5e-3c0e-4d1b-9f67-6c0a51d1f6a3","entity":"12345","event_time":"2026-01-01T00:00:00Z",'
PREDICTION += b'"served_at":"2026-01-01T00:00:00.123456Z","score":0.123456789012345,"features":[%b]}' % b",".join(
    [b"0.1234567"] * 12 + [b'"abc"'] * 3
)
ROWS = 100
"""Of a request."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictions", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    set_malloc(MALLOC)  # as the keeper has it
    with Sink() as sink:
        os.environ["PUBSUB_EMULATOR_HOST"] = sink.address
        publisher = Publisher("bench")
        publish(publisher, ROWS)  # the client is imported, and connected
        found = [publish(publisher, given.predictions) for _ in range(given.rounds)]
        assert sink.predictions() == ROWS + given.rounds * given.predictions
    wall, busy = (statistics.median(column) for column in zip(*found, strict=True))
    print(f"{len(PREDICTION)} bytes each: {wall:,.0f} a second, {busy:,.0f} for each second of the processor")


def publish(publisher: Publisher, predictions: int) -> tuple[float, float]:
    """Predictions for each second that passes, and for each that the processor worked."""
    with tempfile.TemporaryDirectory() as root:
        writer = SpoolWriter(Path(root))
        for _ in range(predictions // ROWS):
            writer.append(Header("shop", "v1", ROWS, 1000), b",".join([PREDICTION] * ROWS))
        spools = SpoolPublisher(publisher, Path(root))
        wall, busy = time.perf_counter(), time.process_time()
        while not spools.publish():
            pass
        found = predictions / (time.perf_counter() - wall), predictions / (time.process_time() - busy)
        spools.close()
    return found


if __name__ == "__main__":
    main()
