from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from esteira.redaction import ColumnRule, Redaction
from esteira.runtime import ReleaseRuntime
from esteira.samples import Sample, SampledPrediction
from esteira.schema import check_row
from predictor.replay import main, replay
from releases import BuiltRelease, build_release, raw_rows, write_manifest


@pytest.fixture(params=["classification", "regression"])
def built(tmp_path: Path, request: pytest.FixtureRequest) -> BuiltRelease:
    return build_release(tmp_path, task=request.param)


def record(built: BuiltRelease, count: int = 40) -> Sample:
    """What production answered, as scikit-learn scores it."""
    runtime = ReleaseRuntime(built.folder)
    rows = raw_rows(count, seed=9)
    typed = [check_row(built.release.columns, row, "")[0] for row in rows]
    features = runtime.features(typed)
    runtime.close()
    scores, threshold = built.expected(features), built.release.threshold
    columns = [[finite(value) for value in features[feature.name]] for feature in built.release.features]
    predictions = [
        SampledPrediction(
            id=UUID(int=position),
            row=row,
            features=list(values),
            score=score,
            label=None if threshold is None else score >= threshold,
        )
        for position, (row, values, score) in enumerate(zip(rows, zip(*columns, strict=True), scores, strict=True))
    ]
    return Sample(pipeline="shop", version="v1", predictions=predictions)


def finite(value: Any) -> Any:
    return None if isinstance(value, float) and abs(value) == float("inf") else value


def altered(sample: Sample, position: int, **changes: Any) -> Sample:
    predictions = list(sample.predictions)
    predictions[position] = msgspec.structs.replace(predictions[position], **changes)
    return msgspec.structs.replace(sample, predictions=predictions)


def test_production_s_answers_are_given_again_to_the_last_bit(built: BuiltRelease) -> None:
    report = replay(built.folder, record(built), 0.0)
    assert (report.passed, report.source, report.rows, report.rows_differing) == (True, "recorded", 40, 0)
    assert all(was == now for was, now in report.scores)


def test_a_score_that_differs_in_its_last_bit_is_named_alone_and_in_a_batch(built: BuiltRelease) -> None:
    sample = record(built)
    score = sample.predictions[7].score
    other = score * (1 + 2**-52)
    report = replay(built.folder, altered(sample, 7, score=other), 0.0)
    assert (report.passed, report.rows_differing) == (False, 1)
    assert [(d.id, d.path, d.expected, d.got) for d in report.differences] == [
        (str(UUID(int=7)), "score", other, score),
        (str(UUID(int=7)), "batch.score", other, score),
    ]
    assert replay(built.folder, altered(sample, 7, score=other), 1e-9).passed


def test_features_are_compared_by_name(built: BuiltRelease) -> None:
    sample = record(built)
    features = [*sample.predictions[3].features[:-1], 99.0]
    report = replay(built.folder, altered(sample, 3, features=features), 0.0)
    assert {d.path for d in report.differences} == {"features.size", "batch.features.size"}


def test_a_request_that_is_refused_is_named_and_the_others_go_on(built: BuiltRelease) -> None:
    sample = record(built)
    report = replay(built.folder, altered(sample, 5, row={**sample.predictions[5].row, "price": -1}), 0.0)
    (difference,) = report.differences
    assert (difference.id, difference.path, difference.expected) == (str(UUID(int=5)), "status", 200)
    assert "rows[0].price" in difference.got
    assert report.scores[5] == (sample.predictions[5].score, None)


@pytest.mark.parametrize("empty", [True, False])
def test_without_recorded_requests_the_release_s_examples_are_replayed(built: BuiltRelease, empty: bool) -> None:
    sample = Sample(pipeline="shop", version="v1", predictions=[]) if empty else None
    report = replay(built.folder, sample, 0.0)
    assert (report.passed, report.source, report.rows) == (True, "example", len(built.release.example))


@pytest.fixture
def withholding(tmp_path: Path) -> BuiltRelease:
    """Its rows are logged without the town for all but a tenth of predictions; its features are clear."""
    built = build_release(tmp_path / "withholding")
    rules = Redaction(columns={"town": ColumnRule(log="sampled", sample=0.1)})
    release = msgspec.structs.replace(built.release, redaction=rules)
    return msgspec.structs.replace(built, release=release, sha256=write_manifest(built.folder, release))


def logged_without_towns(built: BuiltRelease) -> Sample:
    sample = record(built, 80)
    clear = built.release.redaction.has_clear_row
    kept = [
        p if clear(p.id) else msgspec.structs.replace(p, row={n: v for n, v in p.row.items() if n != "town"})
        for p in sample.predictions
        if p.row["price"] is None or clear(p.id)  # `huge` is infinite wherever there is a price, and logged as missing
    ]
    return msgspec.structs.replace(sample, predictions=kept)


def test_rows_that_lack_a_withheld_column_are_replayed_from_their_features(withholding: BuiltRelease) -> None:
    sample = logged_without_towns(withholding)
    report = replay(withholding.folder, sample, 0.0)
    assert (report.passed, report.rows) == (True, len(sample.predictions))
    assert 0 < report.by_features < report.rows
    position = next(at for at, p in enumerate(sample.predictions) if "town" not in p.row)
    wrong = replay(withholding.folder, altered(sample, position, score=0.125), 0.0)
    assert [d.path for d in wrong.differences] == ["score", "batch.score"]


def test_a_release_that_this_code_refuses_does_not_pass(built: BuiltRelease) -> None:
    (built.folder / "model.onnx").write_bytes(b"changed")
    report = replay(built.folder, record_nothing(), 0.0)
    assert not report.passed
    assert report.refused is not None
    assert "model.onnx" in report.refused


def record_nothing() -> Sample:
    return Sample(pipeline="shop", version="v1", predictions=[])


def test_the_command_writes_what_the_replay_showed(built: BuiltRelease, tmp_path: Path) -> None:
    file, out = tmp_path / "sample.json", tmp_path / "out.json"
    file.write_bytes(msgspec.json.encode(altered(record(built), 0, score=0.125)))
    main([f"--release={built.folder}", f"--sample={file}", f"--report={out}"])
    found = msgspec.json.decode(out.read_bytes())
    assert (found["passed"], found["rows_differing"]) == (False, 1)
    assert found["differences"][0]["expected"] == 0.125
