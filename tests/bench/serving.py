"""The predictor under load, beside what a user would run instead: one run, alternating rounds, medians.

    python tests/bench/serving.py [--rounds 3] [--seconds 4] [--only esteira-granian,mlserver] [--quick]

Every side serves the same model of 17 numbers and 3 categories with two workers, and has to score as scikit-learn
does before it is measured; the load generator shares the machine's cores with it. `echo` decodes and encodes JSON on
the same server, and does nothing else: the most that any application there can reach. The last line is one JSON
object with the ratios.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

os.environ["OMP_NUM_THREADS"] = "1"
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from ending import summarize_endings
from figures import ALONE, SERVER, summarize
from load import Measured
from model import Model
from process import CannotStart, Server, running
from sides import BATCHES, WORKERS, Route, Side, Sides, WrongScores
from sink import Sink
from variants import BUCKET, PROJECT, Variants

from esteira.bucket import Bucket
from esteira_cli.stack import Options, Stack
from esteira_cli.stack.bucket import create as create_bucket

VARIANTS = (ALONE, "wide", "swap", "sigterm")
REST_S = 2.0
ESTEIRA = "esteira"


class Run:
    """What all rounds found."""

    def __init__(self, sink: Sink, seconds: float, batches: list[int], endings: int) -> None:
        self._sink = sink
        self.seconds = seconds
        self.batches = batches
        self.endings = endings
        self.loads: dict[tuple[str, int], list[Measured]] = {}
        self.alone: list[float] = []
        self.starts: dict[str, list[float]] = {}
        self.memory: dict[str, list[float]] = {}
        self.failures: dict[str, int] = {}
        self._answered = 0

    def measure(self, name: str, side: Side) -> None:
        """One round of one side: start, check, load, weigh; and see that what was answered was logged."""
        before, answered = self._sink.predictions(), self._answered
        with running(side.command, side.environ, side.folder, side.routes[0].answers) as server:
            for route in side.routes:
                for rows in self.batches:
                    if self._measure_batch(route, rows).failures:
                        tell(f"the log of {name} ends with:\n{server.said()}")
            self._weigh(name, server)
        if name.startswith(ESTEIRA):
            self._require_logged(name, self._answered - answered, self._sink.predictions() - before)

    def _require_logged(self, name: str, answered: int, logged: int) -> None:
        tell(f"{name}: {answered:,} predictions answered to the end, {logged:,} published")
        if logged < answered:
            raise AssertionError(f"{name} answered {answered} predictions and published {logged}")

    def _measure_batch(self, route: Route, rows: int) -> Measured:
        route.verify(rows)
        warm = route.measure(rows, min(0.5, self.seconds))
        one = route.measure(rows, self.seconds)
        self._answered += rows * (1 + sum(load.requests - load.failures for load in (warm, one)))
        self.loads.setdefault((route.name, rows), []).append(one)
        self.failures[route.name] = self.failures.get(route.name, 0) + one.failures
        tell(f"{route.name}, {rows} rows: {one.rate:,.1f}/s, p99 {one.percentile(0.99):.2f} ms, {one.failures} failed")
        return one

    def _weigh(self, name: str, server: Server) -> None:
        time.sleep(REST_S)
        self.starts.setdefault(name, []).append(server.start_s)
        self.memory.setdefault(name, []).append(server.memory_mb() / WORKERS)
        tell(f"{name}: {server.start_s:.2f} s to the first right answer, {self.memory[name][-1]:.0f} MB a worker")

    def rates(self) -> dict[tuple[str, int], float]:
        """Median requests a second."""
        found = {key: median(one.rate for one in many) for key, many in self.loads.items()}
        return found | ({(ALONE, 1000): median(self.alone)} if self.alone else {})

    def percentile(self, key: tuple[str, int], share: float) -> float:
        """Median of the rounds, milliseconds."""
        return median(one.percentile(share) for one in self.loads[key])


def main() -> None:
    """Measures, and prints a table for each batch size and the ratios."""
    given = parse()
    folder = Path(tempfile.mkdtemp(prefix="esteira-bench-"))
    (folder / "pipelines").mkdir()
    stack = Stack(folder / "stack", folder / "pipelines", Options(durable=False, log_level="error"))
    try:
        stack.up(only={"bucket"})
        with Sink() as sink:
            run, variants = measure_all(given, stack, sink, folder)
    finally:
        stack.down(wipe=True)
        shutil.rmtree(folder, ignore_errors=True)
    show(run, variants)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument(
        "--only", default="", help="names of sides, and wide, swap, sigterm and the model alone, with commas"
    )
    parser.add_argument("--endings", type=int, default=20, help="times SIGTERM under load, all in the first round")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    parser.add_argument("--quick", action="store_true", help="one round of a second: shows that everything runs")
    parser.add_argument("--peers", type=Path, default=Path(".bench-peers"), help="the environment of the peers")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.seconds, given.endings = 1, 1.0, 1
    return given


def measure_all(given: argparse.Namespace, stack: Stack, sink: Sink, folder: Path) -> tuple[Run, Variants]:
    """All rounds; what fails is told and does not stop the others."""
    model = Model()
    bucket = serve(model, stack, folder)
    sides = Sides(model, {**stack.environment("predictor"), "PUBSUB_EMULATOR_HOST": sink.address}, folder, given.peers)
    variants = Variants(model, sides, bucket, sink, folder)
    run = Run(sink, given.seconds, [int(text) for text in given.batches.split(",")], given.endings)
    names = [*sides.makers, *VARIANTS]
    wanted = [name for name in given.only.split(",") if name] or names
    if unknown := set(wanted) - set(names):
        raise SystemExit(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    for number in range(given.rounds):
        tell(f"round {number + 1} of {given.rounds}")
        for name in (name for name in names if name in wanted):
            try:
                measure_one(name, run, sides, variants)
            except (CannotStart, WrongScores, OSError) as error:
                tell(f"{name} was not measured: {error}")
    return run, variants


def measure_one(name: str, run: Run, sides: Sides, variants: Variants) -> None:
    """One round of a side or a variant."""
    if name == ALONE:
        run.alone.append(variants.measure_alone(1000, run.seconds))
        tell(f"{name}: {1000 * run.alone[-1]:,.0f} rows/s")
    elif name == "wide":
        variants.measure_wide(SERVER, run.seconds)
        tell(f"wide: {variants.wide_ms()} ms")
    elif name == "swap":
        switched = variants.measure_swap(SERVER, max(run.seconds, 3.0))
        failed = sum(one.failures for one in variants.swapping)
        tell(f"swap: p99 {variants.p99_ms()} ms, switched {switched} times, {failed} failed")
    elif name == "sigterm":
        while len(variants.endings) < run.endings:
            tell(f"sigterm: {variants.measure_ending(SERVER)}")
    else:
        run.measure(name, sides.make(name))


def serve(model: Model, stack: Stack, folder: Path) -> Bucket:
    """A bucket in which the model is released and promoted."""
    address = stack.addresses()["bucket"]
    os.environ["STORAGE_EMULATOR_HOST"] = address
    create_bucket(address, BUCKET, PROJECT)
    bucket = Bucket(BUCKET, PROJECT)
    built = model.release(folder / "releases")
    built.upload(bucket)
    built.promote(bucket)
    return bucket


def tell(text: str) -> None:
    print(text, flush=True)


def show(run: Run, variants: Variants) -> None:
    """The tables, and the ratios as the last line."""
    rates = run.rates()
    for rows in run.batches:
        print(f"\n| {rows:,} rows a request | requests/s | rows/s | p50 ms | p99 ms |\n|---|---:|---:|---:|---:|")
        for name, _ in (key for key in rates if key[1] == rows):
            rate, key = rates[name, rows], (name, rows)
            shown = [f"{run.percentile(key, share):.2f}" if key in run.loads else "" for share in (0.5, 0.99)]
            print(f"| {name} | {rate:,.1f} | {rate * rows:,.0f} | {' | '.join(shown)} |")
    start_s = {name: median(many) for name, many in run.starts.items()}
    memory = {name: median(many) for name, many in run.memory.items()}
    print("\n| side | start to first right answer, s | MB a worker |\n|---|---:|---:|")
    for name, seconds in start_s.items():
        print(f"| {name} | {seconds:.2f} | {memory[name]:.0f} |")
    endings = summarize_endings(variants.endings)
    if endings:
        print(f"\n| SIGTERM under load: {' | '.join(endings)} |\n|{'---:|' * len(endings)}")
        print(f"| {' | '.join(map(str, endings.values()))} |")
    turns: dict[str, list[Measured]] = {"steady": variants.steady, "swapping": variants.swapping}
    turns |= {f"wide, {columns} columns": many for columns, many in variants.wide.items()}
    failures = run.failures | {name: sum(one.failures for one in many) for name, many in turns.items() if many}
    summary = summarize(
        rates,
        wide_ms=variants.wide_ms(),
        p99_ms=variants.p99_ms(),
        start_s=start_s,
        memory_mb_per_worker=memory,
        failures=failures,
        sigterm=endings,
    )
    print("\n" + json.dumps(summary))


if __name__ == "__main__":
    main()
