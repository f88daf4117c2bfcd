"""The build hook compiles, and says why where it cannot."""

import ctypes
import runpy
import shutil
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder

from pages import ROOT


@pytest.fixture(scope="module")
def hook() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "kernel/hatch_build.py"))


def test_it_leaves_nothing_but_the_library(hook: dict[str, Any], tmp_path: Path) -> None:
    source = tmp_path / "answer.zig"
    source.write_text("pub export fn answer() callconv(.c) u32 {\n    return 42;\n}\n")
    hook["compile_kernel"](source, tmp_path / "answer.bin")
    assert ctypes.CDLL(str(tmp_path / "answer.bin")).answer() == 42
    assert {path.name for path in tmp_path.iterdir()} == {"answer.zig", "answer.bin"}


def test_a_source_that_does_not_compile_leaves_the_library_as_it_was(hook: dict[str, Any], tmp_path: Path) -> None:
    source, library = tmp_path / "broken.zig", tmp_path / "broken.bin"
    source.write_text("pub export fn answer() u32 { return true; }\n")
    library.write_bytes(b"before")
    with pytest.raises(SystemExit, match=r"(?s)broken.zig does not compile for .*expected type 'u32'"):
        hook["compile_kernel"](source, library)
    assert library.read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {"broken.zig", "broken.bin"}


def test_a_missing_compiler_is_named_with_what_to_do(hook: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no_such_compiler, which is not installed.*requirements-build.txt"):
        hook["compile_kernel"](tmp_path / "a.zig", tmp_path / "a.bin", "no_such_compiler")


def test_a_wheel_is_for_one_platform_and_every_python(tmp_path: Path) -> None:
    copy = tmp_path / "kernel"
    shutil.copytree(ROOT / "kernel", copy, ignore=shutil.ignore_patterns("*.bin", "__pycache__"))
    (wheel,) = WheelBuilder(str(copy)).build(directory=str(tmp_path / "wheels"))
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert Path(wheel).name == f"esteira_kernel-0.1.0-py3-none-{platform}.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert "esteira_kernel/kernel.bin" in names
    assert "esteira_kernel/trees.py" in names


def test_the_compiler_is_the_same_for_wheels_and_for_the_workspace() -> None:
    own, workspace = (ROOT / "kernel/pyproject.toml").read_text(), (ROOT / "pyproject.toml").read_text()
    (pinned,) = {line for line in own.replace('"', "\n").splitlines() if line.startswith("ziglang==")}
    assert f'"{pinned}"' in workspace
    for path in ("requirements.txt", "kernel/requirements-build.txt"):
        assert f"{pinned} \\" in (ROOT / path).read_text()
