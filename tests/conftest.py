"""For every test."""

import os
import shutil
import signal
import tempfile

import pytest
from hypothesis import settings

settings.register_profile("esteira", deadline=None)  # a busy machine is no failure
settings.load_profile("esteira")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job, and all that it starts, ignores it


def pytest_configure(config: pytest.Config) -> None:
    """Gives root's sessions temporary folders apart.

    Each session takes from everybody else the right to enter the folder that sessions share; under root, Postgres is
    somebody else, and would lose its data to a session that begins beside its own.
    """
    if os.geteuid() == 0 and "PYTEST_DEBUG_TEMPROOT" not in os.environ:
        root = tempfile.mkdtemp(prefix="esteira-tests-")
        os.environ["PYTEST_DEBUG_TEMPROOT"] = root
        config.add_cleanup(lambda: shutil.rmtree(root, ignore_errors=True))
