"""Locks the dependencies: requirements.txt for the workspace, and one for each member and image that agrees with it.

No address of an index stands in what it writes. `--upgrade` takes the newest versions that the members allow.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MEMBERS = ("kernel", "shared", "services/etl", "services/trainer", "services/predictor", "services/monitor", "cli")
OWN = [f"--no-emit-package=esteira-{Path(member).name}" for member in MEMBERS]
COMMON = [
    *("--universal", "--python-version=3.11", "--generate-hashes", "--no-annotate", "--quiet"),
    *("--no-emit-index-url", "--no-emit-find-links", "--custom-compile-command=make lock"),
]


def compile_requirements(source: str, target: str, *options: str, wanted: str = "") -> None:
    """Locks what `source` asks for; `-` stands for the text `wanted`."""
    command = [sys.executable, "-m", "uv", "pip", "compile", source, *COMMON, *OWN, "--output-file", target, *options]
    subprocess.run(command, cwd=ROOT, check=True, input=wanted, text=True)


def locked(*names: str) -> list[str]:
    """The versions of these that requirements.txt locks."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [line.removesuffix(" \\") for line in lines if line.split("==")[0] in names]


def main() -> None:
    compile_requirements("pyproject.toml", "requirements.txt", "--group=dev", *sys.argv[1:])
    for member in MEMBERS:
        options = ["--constraint=requirements.txt"]
        if member == "shared":
            options.append("--all-extras")
        compile_requirements(f"{member}/pyproject.toml", f"{member}/requirements.txt", *options)
    agreed = "--constraint=requirements.txt"
    compile_requirements("infra/mlflow/requirements.in", "infra/mlflow/requirements.txt", agreed)
    compile_requirements("-", "requirements-build.txt", agreed, wanted="hatchling")
    compile_requirements("-", "kernel/requirements-build.txt", agreed, wanted="ziglang")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as shared:
        shared.write("\n".join(locked("numpy", "pandas", "scikit-learn")))
        shared.flush()
        peers = "tests/bench/peers/requirements"
        compile_requirements(f"{peers}.in", f"{peers}.txt", f"--constraint={shared.name}", *sys.argv[1:])
    lines = (ROOT / "requirements.txt").read_text().splitlines(keepends=True)
    start = next(number for number, line in enumerate(lines) if line.startswith("uv=="))
    end = next(n for n, line in enumerate(lines[start + 1 :], start + 1) if not line.startswith(" "))
    (ROOT / "requirements-uv.txt").write_text("".join(lines[start:end]))


if __name__ == "__main__":
    main()
