"""The predictor alone: wide rows, releases that take turns, its end under load; and its model without a server."""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
from ending import Ending, end_under_load
from load import Measured
from model import CATEGORIES, Model
from process import running
from sides import WORKERS, Route, Sides
from sink import Sink

from esteira.bucket import Bucket
from esteira.release import MODEL

HERE = Path(__file__).parent
BUCKET = PROJECT = "esteira-local"
COLUMNS = (10, 600)
POLL_S = "0.2"


class Variants:
    """Measures them, and keeps what each round found.

    Args:
        bucket: in which the measured model's release lies and serves.
        sink: takes the predictor's log.
    """

    def __init__(self, model: Model, sides: Sides, bucket: Bucket, sink: Sink, folder: Path) -> None:
        self._model, self._sides, self._bucket, self._sink, self._folder = model, sides, bucket, sink, folder
        self.wide: dict[int, list[Measured]] = {}
        self.steady: list[Measured] = []
        self.swapping: list[Measured] = []
        self.endings: list[Ending] = []
        self._wide_models: list[Model] = []
        self._pointers: list[Path] = []

    def measure_alone(self, rows: int, seconds: float) -> float:
        """Batches a second of the exported model, in as many processes as the servers have workers."""
        matrix = self._folder / "matrix.npy"
        np.save(matrix, self._model.matrix[:rows])
        onnx = self._folder / "releases" / self._model.name / "v1" / MODEL
        command = [sys.executable, str(HERE / "alone.py"), str(onnx), str(matrix)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen(command, **pipes) for _ in range(WORKERS)]  # type: ignore[call-overload]
        try:
            for process in processes:
                process.stdout.readline()
            for process in processes:
                process.stdin.write(f"{seconds}\n")
                process.stdin.flush()
            return sum(float(process.stdout.readline()) for process in processes)
        finally:
            for process in processes:
                process.communicate()

    def measure_wide(self, server: str, seconds: float) -> None:
        """One row at one connection, of few columns and of many, in turns."""
        if not self._wide_models:
            self._wide_models = [self._release_wide(columns) for columns in COLUMNS]
        side = self._sides.esteira("esteira-wide", server)
        port = int(side.environ["PORT"])
        routes = [self._sides.esteira_routes(f"wide-{m.frame.shape[1]}", port, m)[0] for m in self._wide_models]
        with running(side.command, side.environ, side.folder, lambda: all(route.answers() for route in routes)):
            for columns, route in zip(COLUMNS, routes, strict=True):
                route.measure(1, 0.5, connections=1)
                self.wide.setdefault(columns, []).append(route.measure(1, seconds, connections=1))

    def measure_swap(self, server: str, seconds: float) -> int:
        """One row at the usual connections, with one release and while two take turns; gives how often they did.

        Raises:
            AssertionError: the last release that was switched to does not serve afterwards.
        """
        if not self._pointers:
            self._pointers = [self._release_turn(number) for number in (1, 2)]
        side = self._sides.esteira("esteira-swap", server, POINTER_POLL_SECONDS=POLL_S)
        route = self._sides.esteira_routes("swap", int(side.environ["PORT"]), self._turn_model)[0]
        with running(side.command, side.environ, side.folder, route.answers):
            route.measure(1, 0.5)
            self.steady.append(route.measure(1, seconds))
            command = [sys.executable, str(HERE / "swap.py"), BUCKET, PROJECT]
            swapper = subprocess.Popen([*command, *map(str, self._pointers)], stdout=subprocess.PIPE, text=True)
            try:
                versions = [swapper.stdout.readline()]
                self.swapping.append(route.measure(1, seconds))
            finally:
                swapper.terminate()
                versions += swapper.communicate()[0].splitlines()
            self._require_served(route, versions[-1].strip())
        return len(versions)

    def measure_ending(self, server: str) -> Ending:
        """SIGTERM while one row is asked for at the usual connections."""
        self.endings.append(end_under_load(self._sides.esteira("esteira-ending", server), self._sink))
        return self.endings[-1]

    def _require_served(self, route: Route, version: str) -> None:
        deadline = time.monotonic() + 10
        while route.served() != version:
            if time.monotonic() > deadline:
                raise AssertionError(f"{version} was switched to and does not serve")
            time.sleep(0.1)

    def wide_ms(self) -> dict[int, float]:
        """Columns → median of the rounds' median milliseconds."""
        return {columns: median(one.percentile(0.5) for one in many) for columns, many in self.wide.items()}

    def p99_ms(self) -> dict[str, float]:
        """Medians of the rounds."""
        kinds = {"steady": self.steady, "swapping": self.swapping}
        return {name: median(one.percentile(0.99) for one in many) for name, many in kinds.items() if many}

    def _release_wide(self, columns: int) -> Model:
        model = Model(f"wide{columns}", numbers=columns - len(CATEGORIES), rows=2000)
        built = model.release(self._folder / "releases")
        built.upload(self._bucket)
        built.promote(self._bucket)
        return model

    def _release_turn(self, number: int) -> Path:
        if number == 1:
            self._turn_model = Model("turns")
        built = self._turn_model.release(self._folder / "releases", f"v{number}")
        built.upload(self._bucket)
        if number == 1:
            built.promote(self._bucket)
        path = self._folder / f"pointer-{number}.json"
        path.write_bytes(msgspec.json.encode(built.pointer()))
        return path
