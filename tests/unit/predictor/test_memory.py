import os
import subprocess
import sys

import pytest

from predictor import memory

TIMES, AT_ONCE, PAGES = 50, 6, 147
"""Pages of a block of 600 kB."""
FAULTS = f"""
import resource
from predictor import memory
memory.set_malloc(SETTINGS)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({TIMES}):
    held = [bytearray(600_000) for _ in range({AT_ONCE})]
    del held
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc's malloc that is set")
@pytest.mark.parametrize(("settings", "is_cleared_anew"), [(memory.MALLOC, False), ({}, True)])
def test_pages_of_bodies_are_used_again_without_the_kernel(settings: dict[str, str], is_cleared_anew: bool) -> None:
    command = [sys.executable, "-c", FAULTS.replace("SETTINGS", repr(settings))]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    assert (int(told.stdout) > TIMES * AT_ONCE * PAGES / 2) == is_cleared_anew


def test_memory_is_given_back_once_whenever_the_process_has_rested() -> None:
    counted, given = [0, 0, 0, 5, 5, 5, 7, 9, 9, 9], []

    def sleep(_: float) -> None:
        if len(counted) == 2:
            raise TimeoutError
        counted.pop(0)

    with pytest.raises(TimeoutError):
        memory._watch(lambda: counted[0], lambda: given.append(counted[0]), sleep)
    assert given == [5, 9]


def test_settings_that_are_blank_or_no_numbers_are_left_alone() -> None:
    memory.set_malloc({"MALLOC_ARENA_MAX": "", "MALLOC_TRIM_THRESHOLD_": "0x10000"})
