"""Switches a pointer between releases until it is ended: python tests/bench/swap.py BUCKET PROJECT A.json B.json

A process of its own, so that the load generator is not held up. Each line that it prints is the version switched to.
"""

import sys
import time
from pathlib import Path

import msgspec

from esteira.bucket import Bucket
from esteira.release import Pointer, pointer_path

INTERVAL_S = 1.0


def main() -> None:
    bucket = Bucket(sys.argv[1], sys.argv[2])
    pointers = [msgspec.json.decode(Path(name).read_bytes(), type=Pointer) for name in sys.argv[3:5]]
    path = pointer_path(pointers[0].pipeline)
    turn = pointers[0].generation
    while True:
        pointer = msgspec.structs.replace(pointers[turn % 2], generation=turn + 1)
        found = bucket.read_versioned(path)
        bucket.write_if(path, msgspec.json.encode(pointer), found[1] if found else 0)
        print(pointer.version, flush=True)
        turn += 1
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    main()
