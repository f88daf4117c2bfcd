"""Compiles the kernel when a wheel is built, and when the package is installed in editable form."""

import os
import subprocess
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE: Final = Path("src/esteira_kernel")
LIBRARY: Final = PACKAGE / "kernel.bin"
COMPILER: Final = "ziglang"
OPTIONS: Final = ("-dynamic", "-O", "ReleaseSafe", "-mcpu", "baseline")
"""`baseline`: runs on every processor of the platform, whichever one it is compiled on."""


class KernelHook(BuildHookInterface):
    """Puts the compiled library into the package, and says which platform the wheel is for."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Compiles before the files are gathered."""
        root = Path(self.root)
        compile_kernel(root / PACKAGE / "kernel.zig", root / LIBRARY)
        build_data["artifacts"].append(LIBRARY.as_posix())  # which Git ignores
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag()}"


def platform_tag() -> str:
    """The platform as it stands in the name of a wheel. No version of a C library: the kernel links none."""
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def compile_kernel(source: Path, library: Path, compiler: str = COMPILER) -> None:
    """Compiles `source` to `library`, which is replaced at once: a process that has loaded the old one keeps it.

    Raises:
        SystemExit: there is no compiler, or it refused.
    """
    if find_spec(compiler) is None:
        sys.exit(
            f"esteira-kernel is compiled by the package {compiler}, which is not installed here, and may have no wheel "
            f"for {sysconfig.get_platform()}; install kernel/requirements-build.txt, or build the wheel elsewhere"
        )
    with (
        tempfile.TemporaryDirectory(prefix="kernel-") as caches,
        tempfile.TemporaryDirectory(dir=library.parent) as new,
    ):
        made = Path(new) / library.name
        command = [sys.executable, "-m", compiler, "build-lib", *OPTIONS, str(source), f"-femit-bin={made}"]
        done = subprocess.run(
            command, env={**os.environ, **_caches(caches)}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{source.name} does not compile for {sysconfig.get_platform()}:\n{done.stderr.strip()}")
        made.replace(library)


def _caches(folder: str) -> dict[str, str]:
    """The compiler's caches: neither in the source tree nor in a home that may not be writable."""
    return {"ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder}
