"""What a commit changed, and which checks that asks for."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

import msgspec

from esteira.exceptions import EsteiraError

CODE = ("services/trainer/", "services/etl/", "shared/src/", "kernel/src/")
"""What makes datasets and models, beside the pipelines' own folders."""
MAIN = ("origin/main", "main")
NEW_BRANCH = "0" * 40
"""What GitHub calls the commit before a branch's first."""
_WITHOUT_EFFECT = (".md", "/Dockerfile", "/service.yaml")


class NoBase(EsteiraError):
    """Git does not say what changed."""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """Paths that differ from a base, relative to the root; None where everything counts as changed."""

    base: str
    paths: list[str] | None = None

    def code(self) -> list[str]:
        """What changed of the code that makes datasets and models."""
        return self._below(CODE)

    def pipeline(self, folder: str) -> list[str]:
        """What changed of a pipeline's folder."""
        return self._below((f"{folder.strip('/')}/",)) if folder else []

    def asks_for_training(self, folder: str) -> bool:
        """Whether the model of the pipeline in `folder` must be tried anew."""
        return self.paths is None or bool(self.code() or self.pipeline(folder))

    def _below(self, prefixes: tuple[str, ...]) -> list[str]:
        return [path for path in self.paths or [] if path.startswith(prefixes) and not path.endswith(_WITHOUT_EFFECT)]


EVERYTHING = Changes(base="everything")


def find_root(folder: Path) -> Path | None:
    """The root of the Git work tree that holds `folder`; None where it is in none."""
    try:
        return Path(_git(folder, "rev-parse", "--show-toplevel"))
    except NoBase:
        return None


def find_changes(root: Path, base: str | None) -> Changes:
    """Compares the work tree, uncommitted and new files included, with `base` or else with where it left main.

    Raises:
        NoBase: there is no such commit here, or no main.
    """
    if base is not None and set(base) == {"0"}:
        return EVERYTHING
    commit = _find_commit(root, base) if base else _merge_base(root)
    changed = _git(root, "diff", "--name-only", "--no-renames", commit).splitlines()
    new = _git(root, "ls-files", "--others", "--exclude-standard").splitlines()
    return Changes(base=base or f"where it left main, {commit[:12]}", paths=sorted({*changed, *new}))


def describe_head(root: Path) -> str:
    """The commit that is checked, shortened; marked where the work tree has more."""
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        return f"{commit} with uncommitted changes" if _git(root, "status", "--porcelain") else commit
    except NoBase:
        return "unknown"


def _find_commit(root: Path, name: str) -> str:
    try:
        return _git(root, "rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")
    except NoBase as error:
        raise NoBase(f"there is no commit {name} here; fetch the history, or check everything with --all") from error


def _merge_base(root: Path) -> str:
    for name in MAIN:
        try:
            return _git(root, "merge-base", "HEAD", name)
        except NoBase:
            continue
    raise NoBase("there is no branch main to compare with; name a commit with --base, or check everything with --all")


def _git(folder: Path, *arguments: str) -> str:
    command: Iterable[str] = ("git", "-C", str(folder), "-c", "core.quotepath=off", *arguments)
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NoBase("git is not installed; install it, or check everything with --all") from error
    if done.returncode:
        what = done.stderr.strip().splitlines()
        raise NoBase(f"git {arguments[0]}: {what[-1] if what else 'failed'}; fetch the history, or use --all")
    return done.stdout.strip()
