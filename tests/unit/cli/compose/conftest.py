"""A fake Docker on PATH."""

from pathlib import Path

import pytest

from unit.cli.compose.docker import Docker, install


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """Docker and Compose 1, which know no container yet."""
    folder = tmp_path / "fake"
    folder.mkdir()
    return install(folder, monkeypatch)
