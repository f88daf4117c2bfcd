import subprocess
import sys

import pytest

from predictor import memory

CHUNKS = 200
PAGES = 256
"""Of a chunk of 1 MiB."""
FAULTS = f"""
import resource
from predictor import memory
memory.set_malloc(SETTINGS)
bytearray(1 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({CHUNKS}):
    bytearray(1 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc's malloc that is set")
@pytest.mark.parametrize(
    ("settings", "is_asked"), [(memory.MALLOC, False), (memory.MALLOC | {"MALLOC_MMAP_THRESHOLD_": "1000"}, True)]
)
def test_memory_of_a_body_is_used_again(settings: dict[str, str], is_asked: bool) -> None:
    command = [sys.executable, "-c", FAULTS.replace("SETTINGS", repr(settings))]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (int(told.stdout) > CHUNKS * PAGES / 2) == is_asked


def test_memory_is_given_back_once_whenever_the_process_has_rested(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, given, done = iter([0, 0, 5, 5, 5, 7, 9, 9, 9]), [], 0

    def count() -> int:
        nonlocal done
        done = next(counted)
        return done

    monkeypatch.setattr(memory, "REST_SECONDS", 0)
    with pytest.raises(StopIteration):
        memory._watch(count, lambda: given.append(done))
    assert given == [5, 9]
