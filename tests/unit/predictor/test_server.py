import subprocess
import sys

import pytest

from predictor import server

CHUNKS = 200
PAGES = 256
"""Of a chunk of 1 MiB."""
FAULTS = f"""
import resource
from predictor import server
server._set_malloc(SETTINGS)
bytearray(1 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({CHUNKS}):
    bytearray(1 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc's malloc that is set")
@pytest.mark.parametrize(
    ("settings", "is_asked"), [(server.DEFAULTS, False), (server.DEFAULTS | {"MALLOC_MMAP_THRESHOLD_": "1000"}, True)]
)
def test_memory_of_a_body_is_used_again(settings: dict[str, str], is_asked: bool) -> None:
    command = [sys.executable, "-c", FAULTS.replace("SETTINGS", repr(settings))]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (int(told.stdout) > CHUNKS * PAGES / 2) == is_asked
