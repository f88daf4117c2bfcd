"""Installs each member alone, from its own locked requirements, and imports every module of it.

A member that imports what it does not list fails here and nowhere else: in the workspace's environment everything is
installed.
"""

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
MEMBERS = {
    "kernel": "esteira_kernel",
    "shared": "esteira",
    "services/etl": "etl",
    "services/trainer": "trainer",
    "services/predictor": "predictor",
    "services/monitor": "monitor",
    "cli": "esteira_cli",
}
NEEDED = {
    "kernel": (),
    "shared": ("kernel",),
    "services/etl": ("shared",),
    "services/monitor": ("shared",),
}
"""What else of ours a member is installed with; the others take `esteira-shared[serving]`, and so the kernel too."""
UNWANTED = {"services/predictor": ("pandas", "sklearn", "mlflow", "sqlalchemy")}

IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith("__main__") and ".migrations" not in module.name:
        importlib.import_module(module.name)
for unwanted in sys.argv[2:]:
    if importlib.util.find_spec(unwanted):
        sys.exit(f"{sys.argv[1]} must not bring {unwanted}")
"""


def check(member: str) -> str | None:
    """Gives what went wrong, or None."""
    with tempfile.TemporaryDirectory() as folder:
        python = f"{folder}/bin/python"
        own = [*NEEDED.get(member, ("kernel", "shared")), member]
        uv = [sys.executable, "-m", "uv", "--quiet"]
        pip = [*uv, "pip", "install", "--python", python]
        steps = [
            [*uv, "venv", "--python", sys.executable, folder],
            [*pip, "--require-hashes", "-r", f"{member}/requirements.txt"],
            [*pip, "--no-deps", *(f"./{path}" for path in own)],
            [python, "-c", IMPORT_ALL, MEMBERS[member], *UNWANTED.get(member, ())],
        ]
        for step in steps:
            done = subprocess.run(step, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                return f"{member}: {done.stderr.strip() or done.stdout.strip()}"
    return None


def main() -> None:
    with ThreadPoolExecutor(2) as pool:
        failures = [failure for failure in pool.map(check, MEMBERS) if failure]
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"{len(MEMBERS) - len(failures)} of {len(MEMBERS)} members install and import alone")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
