import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from esteira.bucket import Bucket
from esteira.exceptions import BadInput, ReleaseRefused
from esteira.release import EXPLANATION, MANIFEST, MODEL, TREES, FeatureForm, File, Release
from esteira.release_files import fetch_release
from esteira.runtime import ReleaseRuntime
from esteira.schema import check_row
from esteira.scoring import OnnxModel
from esteira.trees import TreesModel
from releases import BuiltRelease, build_release, raw_rows, write_manifest


@pytest.fixture
def built(tmp_path: Path) -> BuiltRelease:
    return build_release(tmp_path)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_scores_have_the_bits_of_scikit_learn(tmp_path: Path, task: str) -> None:
    built = build_release(tmp_path, task=task)
    runtime = ReleaseRuntime(built.folder, built.sha256)
    rows = [check_row(built.release.columns, row, "row")[0] for row in raw_rows(60, seed=9)]
    features = runtime.features(rows)
    assert runtime.score(features).tolist() == built.expected(features)
    assert runtime.profile().rows == 400


@pytest.mark.parametrize("name", [MODEL, TREES, EXPLANATION, "reference/towns.parquet", "profile.json", MANIFEST])
def test_a_changed_file_is_refused(built: BuiltRelease, name: str) -> None:
    with (built.folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ReleaseRefused, match="has sha256"):
        ReleaseRuntime(built.folder, built.sha256)


@pytest.mark.parametrize("name", [MODEL, TREES, MANIFEST])
def test_a_missing_file_is_refused(built: BuiltRelease, name: str) -> None:
    (built.folder / name).unlink()
    with pytest.raises(ReleaseRefused, match="lacks"):
        ReleaseRuntime(built.folder, built.sha256)


def test_trees_serve_where_the_release_has_them_and_onnx_runtime_else(built: BuiltRelease) -> None:
    rows = [tuple(check_row(built.release.columns, row, "row")[0].values()) for row in raw_rows(60, seed=9)]
    trees = ReleaseRuntime(built.folder)
    write_manifest(built.folder, _without(built.release, TREES))
    onnx = ReleaseRuntime(built.folder)
    assert (type(trees.model), type(onnx.model)) == (TreesModel, OnnxModel)
    features = trees.feature_rows(rows)
    assert trees.score_rows(features).tolist() == onnx.score_rows(features).tolist()


def test_onnx_runtime_is_not_imported_for_trees(built: BuiltRelease) -> None:
    script = (
        "import sys; from pathlib import Path; from esteira.runtime import ReleaseRuntime\n"
        "ReleaseRuntime(Path(sys.argv[1])); print('onnxruntime' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(built.folder)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_trees_of_another_model_are_refused(built: BuiltRelease, tmp_path: Path) -> None:
    other = build_release(tmp_path / "other", task="regression")
    (built.folder / TREES).write_bytes((other.folder / TREES).read_bytes())
    files = {**built.release.files, TREES: other.release.files[TREES]}
    write_manifest(built.folder, _changed(built.release, files=files))
    with pytest.raises(ReleaseRefused, match="task is 'regression'"):
        ReleaseRuntime(built.folder)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_explanations_sum_to_the_raw_scores(tmp_path: Path, task: str) -> None:
    runtime = ReleaseRuntime(build_release(tmp_path, task=task).folder)
    rows = [tuple(check_row(runtime.release.columns, row, "row")[0].values()) for row in raw_rows(60, seed=9)]
    matrix = runtime.model.encoder.encode_rows(runtime.feature_rows(rows))
    explanations = runtime.explain_rows(matrix)
    raw = runtime.model.raw(matrix)[:, 0]
    sums = [explanation.base + sum(explanation.contributions.values()) for explanation in explanations]
    assert sums == pytest.approx(raw.tolist(), abs=1e-9)
    assert {tuple(explanation.contributions) for explanation in explanations} == {("price", "huge", "town", "size")}


def test_a_release_without_explanations_scores_and_says_so(built: BuiltRelease) -> None:
    write_manifest(built.folder, _without(built.release, EXPLANATION))
    runtime = ReleaseRuntime(built.folder)
    with pytest.raises(BadInput, match="release v1 carries no explanations"):
        runtime.explain_rows(np.zeros((1, 4)))


def test_an_explanation_changed_after_the_start_is_refused(built: BuiltRelease) -> None:
    runtime = ReleaseRuntime(built.folder)
    (built.folder / EXPLANATION).write_bytes(b"other")
    with pytest.raises(ReleaseRefused, match="has sha256"):
        runtime.explain_rows(np.zeros((1, 4)))


def _form(release: Release, old: str, new: str) -> FeatureForm:
    """The release's SQLite form, spoiled."""
    assert release.form.statement is not None
    return msgspec.structs.replace(release.form, statement=release.form.statement.replace(old, new))


def _changed(release: Release, **changes: object) -> Release:
    return msgspec.structs.replace(release, **changes)


def _without(release: Release, name: str) -> Release:
    return _changed(release, files={other: file for other, file in release.files.items() if other != name})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda r: {"files": {**r.files, "../../outside": File("0", 1)}}, "outside"),
        (lambda r: {"files": {**r.files, "/outside": File("0", 1)}}, "outside"),
        (lambda r: {"files": {**r.files, "./release.json": File("0", 1)}}, "no file within"),
        (lambda _: {"reference": {"towns": "../towns.parquet"}}, "does not list"),
        (lambda _: {"example_scores": [0.1, 0.1, 0.1]}, "answers"),
        (lambda _: {"example_scores": []}, "answers"),
        (lambda _: {"example": [{"id": "x"}] * 3}, "breaks its own schema"),
        (lambda _: {"statement": "SELECT raw._row AS _row, nope FROM raw", "form": FeatureForm()}, "does not run"),
        (lambda r: {"statement": r.statement.replace("LEFT JOIN", "JOIN"), "form": FeatureForm()}, "does not run"),
        (lambda r: {"form": msgspec.structs.replace(r.form, statement="SELECT nope FROM raw")}, "does not run"),
        (
            lambda r: {
                "form": msgspec.structs.replace(r.form, statement=r.form.statement.replace("LEFT JOIN", "JOIN"))
            },
            "does not run",
        ),
        (lambda r: {"features": r.features[:-1]}, "features"),
    ],
)
def test_a_release_that_does_not_hold_together_is_refused(built: BuiltRelease, change, message) -> None:  # type: ignore[no-untyped-def]
    sha256 = write_manifest(built.folder, _changed(built.release, **change(built.release)))
    with pytest.raises(ReleaseRefused, match=message):
        ReleaseRuntime(built.folder, sha256)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[1]"])
def test_a_manifest_that_is_none_is_refused(built: BuiltRelease, data: bytes) -> None:
    (built.folder / MANIFEST).write_bytes(data)
    with pytest.raises(ReleaseRefused, match="is not a release's"):
        ReleaseRuntime(built.folder)


@pytest.mark.parametrize("stray", ["", "..", "/", "a" * 63, "A" * 64])
def test_a_pointer_that_names_no_sha256_touches_no_folder(tmp_path: Path, stray: str) -> None:
    cache = tmp_path / "cache"
    (cache / "kept").mkdir(parents=True)
    with pytest.raises(ReleaseRefused, match="no sha256"):
        fetch_release(Bucket("nowhere", "nobody", emulator="http://127.0.0.1:9"), "releases/p/1/", stray, cache)
    assert (cache / "kept").is_dir()
    assert tmp_path.is_dir()
