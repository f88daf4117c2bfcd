import subprocess
from pathlib import Path

import pytest

from esteira_cli.validate.changes import EVERYTHING, NEW_BRANCH, Changes, NoBase, find_changes, find_root

HERE = "pipelines/shop"


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def write(folder: Path, path: str, text: str) -> None:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def work_tree(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "main")
    write(tmp_path, "README.md", "first")
    write(tmp_path, "services/etl/src/etl/app.py", "first")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "First")
    return tmp_path


def test_commits_since_main_edits_and_new_files_all_count(work_tree: Path) -> None:
    git(work_tree, "switch", "-q", "-c", "branch")
    write(work_tree, "pipelines/shop/features.sql", "SELECT 1")
    git(work_tree, "add", ".")
    git(work_tree, "commit", "-q", "-m", "Second")
    write(work_tree, "README.md", "edited")
    write(work_tree, "services/etl/src/etl/größe.py", "new")
    found = find_changes(work_tree, None)
    assert found.paths == ["README.md", "pipelines/shop/features.sql", "services/etl/src/etl/größe.py"]


def test_what_main_did_since_does_not_count(work_tree: Path) -> None:
    git(work_tree, "switch", "-q", "-c", "branch")
    git(work_tree, "switch", "-q", "main")
    write(work_tree, "services/etl/src/etl/app.py", "second")
    git(work_tree, "commit", "-q", "-a", "-m", "Second")
    git(work_tree, "switch", "-q", "branch")
    assert find_changes(work_tree, None).paths == []


def test_a_file_that_moved_away_counts(work_tree: Path) -> None:
    git(work_tree, "mv", "services/etl/src/etl/app.py", "elsewhere.py")
    assert find_changes(work_tree, "HEAD").paths == ["elsewhere.py", "services/etl/src/etl/app.py"]


def test_the_first_push_of_a_branch_checks_everything(work_tree: Path) -> None:
    assert find_changes(work_tree, NEW_BRANCH) is EVERYTHING


def test_a_base_that_is_not_here_says_what_to_do(work_tree: Path) -> None:
    with pytest.raises(NoBase, match="--all"):
        find_changes(work_tree, "nosuch")


def test_the_root_is_found_from_below_and_missed_outside(
    work_tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert find_root(work_tree / "services" / "etl") == work_tree.resolve()
    assert find_root(tmp_path_factory.mktemp("no-work-tree")) is None


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("pipelines/shop/features.sql", True),
        ("pipelines/shop/reference/towns.csv", True),
        ("pipelines/shop/README.md", False),
        ("pipelines/shopping/features.sql", False),
        ("services/trainer/src/trainer/fit.py", True),
        ("services/trainer/requirements.txt", True),
        ("services/etl/src/etl/prepare.py", True),
        ("services/etl/Dockerfile", False),
        ("shared/src/esteira/schema.py", True),
        ("kernel/src/esteira_kernel/trees.zig", True),
        ("shared/migrations/versions/0001_first_tables.py", False),
        ("services/predictor/src/predictor/handlers.py", False),
        ("services/monitor/src/monitor/drift.py", False),
    ],
)
def test_training_is_asked_for_by_what_makes_datasets_and_models(path: str, asked: bool) -> None:
    assert Changes(base="b", paths=[path]).asks_for_training(HERE) is asked


def test_a_pipeline_that_lies_outside_the_work_tree_did_not_change() -> None:
    changes = Changes(base="b", paths=["pipelines/shop/features.sql"])
    assert (changes.pipeline(""), changes.asks_for_training("")) == ([], False)
    assert EVERYTHING.asks_for_training("")
