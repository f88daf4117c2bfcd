"""Bodies that nobody meant: mutations of good ones, for every dialect. 50,000 of them:

    python tests/contract/dialects/fuzzing.py [--bodies 50000] [--seed 1]

None may be answered 5xx, every answer of a JSON dialect is JSON, and memory stays flat.
"""

import argparse
import copy
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.path[:0] = [str(Path(__file__).parents[2])]

import msgspec

from contract.dialects.site import HELD_OUT, ROW, Site
from predictor.dialects.options import DialectOptions
from releases import build_release

JSON = "application/json"
WHEN = "2026-01-01T00:00:00Z"
ODD: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        2**31,
        2**63,
        -(2**64),
        1e308,
        -0.0,
        1e-320,
        0.1,
        "",
        " ",
        "0",
        "é",
        "\u0000",
        "\ud800",
    ),
    *([], {}, [[]], [None], {"": None}, "x" * 5000, [0] * 300, {"a": {"b": {"c": []}}}, "2026-01-01", "NaN"),
]
RAW = [
    b"\x00",
    b"\xff",
    b"NaN",
    b"Infinity",
    b"-",
    b"1e999",
    b"]",
    b"}",
    b'"',
    b",",
    b"[" * 2000,
    b"9" * 5000,
    b"\xed\xa0\x80",
]


class Target(msgspec.Struct, frozen=True):
    """A route, and a body that it takes."""

    path: str
    good: Any
    content_type: str = JSON


def targets() -> list[Target]:
    """Every route that takes a body from a client."""
    columns = {name: [row[name] for row in HELD_OUT[:3]] for name in ROW}
    kinds = {"id": "INT64", "at": "BYTES", "price": "FP64", "town": "BYTES"}
    tensors = [{"name": n, "shape": [3], "datatype": kinds[n], "data": values} for n, values in columns.items()]
    features = {"price": 1.5, "huge": None, "town": "Rome", "size": 2.0}
    split = {"columns": list(ROW), "data": [list(row.values()) for row in HELD_OUT[:3]]}
    text = (
        ",".join(ROW)
        + "\n"
        + "\n".join(",".join("" if v is None else str(v) for v in row.values()) for row in HELD_OUT[:3])
    )
    return [
        Target("/pipelines/shop/predict", {"rows": HELD_OUT[:3]}),
        Target("/pipelines/shop/predict", {"features": [features, features]}),
        Target("/pipelines/shop/predict", {"features": [features], "explain": True}),
        Target("/pipelines/shop/feedback", {"outcomes": [{"entity": {"id": 1}, "label": 1, "event_time": WHEN}]}),
        Target("/invocations", {"dataframe_split": split}),
        Target("/invocations", {"dataframe_records": HELD_OUT[:2], "params": {"output": "all"}}),
        Target("/invocations", {"inputs": columns}),
        Target("/invocations", {"instances": HELD_OUT[:2]}),
        Target("/invocations", text, "text/csv"),
        Target("/invocations", "\n".join(map(json.dumps, HELD_OUT[:2])), "application/jsonlines"),
        Target("/v2/models/shop/infer", {"id": "1", "inputs": tensors, "outputs": [{"name": "score"}]}),
        Target("/v1/models/shop:predict", {"instances": HELD_OUT[:2]}),
        Target("/v1/models/shop:predict", {"inputs": columns, "signature_name": "serving_default"}),
        Target("/vertex/predict", {"instances": HELD_OUT[:2], "parameters": {"output": "label"}}),
    ]


def bodies(good: Any, chance: random.Random) -> Iterator[bytes]:
    """Mutations without end: of the values, of the keys, of the bytes."""
    while True:
        if isinstance(good, str):
            yield _broken(good.encode(), chance)
            continue
        mutated = _mutated(json.loads(json.dumps(good)), chance)
        data = json.dumps(mutated).encode()
        yield _broken(data, chance) if chance.random() < 0.4 else data


def _mutated(value: Any, chance: random.Random) -> Any:
    for _ in range(chance.randint(1, 3)):
        place, key = _somewhere(value, chance)
        if place is None:
            return _odd(chance)
        what = chance.random()
        if what < 0.6:
            place[key] = _odd(chance)
        elif what < 0.75:
            del place[key]
        elif isinstance(place, dict):
            place[str(chance.choice(["nope", "", "rows", "é", key]))] = place[key]
        else:
            place.extend([place[key]] * chance.choice([1, 3, 1100]))
    return value


def _odd(chance: random.Random) -> Any:
    """A copy, for what is put into one place may itself be changed."""
    return copy.deepcopy(chance.choice(ODD))


def _somewhere(value: Any, chance: random.Random) -> tuple[Any, Any]:
    """A random place in nested arrays and objects: the container, and the key in it."""
    place: tuple[Any, Any] = (None, None)
    while isinstance(value, list | dict) and value and (place[0] is None or chance.random() < 0.75):
        key = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
        place, value = (value, key), value[key]
    return place


def _broken(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 3)):
        at = chance.randint(0, len(data))
        what = chance.random()
        if what < 0.4:
            data = data[:at] + chance.choice(RAW) + data[at:]
        elif what < 0.7:
            data = data[:at] + data[at + chance.randint(1, 20) :]
        elif what < 0.85:
            data = data[:at]
        else:
            data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
    return data


def fuzz(site: Site, count: int, seed: int, tell: Callable[[int], object] = lambda _: None) -> Counter[int]:
    """Sends `count` bodies; how many answers had each status.

    Raises:
        AssertionError: names the body whose answer is 5xx, or not JSON.
    """
    chance = random.Random(seed)
    streams = [(target, bodies(target.good, chance)) for target in targets()]
    found: Counter[int] = Counter()
    for number in range(count):
        target, stream = streams[number % len(streams)]
        body = next(stream)
        answer = site.client.post(target.path, data=body, content_type=target.content_type)
        assert answer.status_code < 500, (target.path, answer.status_code, answer.data[:300], body[:2000])
        json.loads(answer.data)
        assert "X-Request-Id" in answer.headers
        found[answer.status_code] += 1
        tell(number)
    return found


def main() -> None:
    """Fuzzes, and says what was answered and how memory went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options = DialectOptions(predict_route="/vertex/predict")
        site = Site(build_release(Path(folder) / "release"), Path(folder), options)
        fuzz(site, given.bodies // 10, given.seed)
        before, began = _resident(), time.monotonic()
        found = fuzz(site, given.bodies, given.seed + 1, lambda n: n % 5000 or print(f"{n:,} bodies", flush=True))
        spent = time.monotonic() - began
        print(f"{given.bodies:,} bodies in {spent:.0f} s, answered {dict(sorted(found.items()))}; none 5xx, all JSON")
        print(f"memory {before:.0f} MB after the first {given.bodies // 10:,} bodies, {_resident():.0f} MB at the end")


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


if __name__ == "__main__":
    main()
