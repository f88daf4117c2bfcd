"""What the rules of columns make of values, and what they mean for features."""

import math
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esteira.exceptions import PipelineInvalid
from esteira.pipeline import LoadedPipeline, load_pipeline
from esteira.redaction import ColumnRule, Redaction, hash_value, is_drawn, resolve
from esteira.release import LogRules, Release
from esteira.statement import compile_statement
from releases import build_release, write_pipeline

ALWAYS, HASHED, NEVER = ColumnRule(log="always"), ColumnRule(log="hashed"), ColumnRule(log="never")
RARELY, OFTEN = ColumnRule(log="sampled", sample=0.01), ColumnRule(log="sampled", sample=0.5)
LINEAGE = {"plain": ["a"], "both": ["a", "b"], "free": ["c"]}


def features(**rules: ColumnRule) -> dict[str, ColumnRule]:
    return resolve(rules, ["a", "b", "c"], LINEAGE).features


def test_a_feature_that_derives_from_a_withheld_column_is_withheld_too() -> None:
    assert features(a=NEVER) == {"plain": NEVER, "both": NEVER}
    assert features(a=HASHED, b=NEVER) == {"plain": HASHED, "both": NEVER}
    assert features(a=OFTEN, b=RARELY) == {"plain": OFTEN, "both": RARELY}
    assert features() == {}


def test_a_feature_named_itself_as_always_logged_is_logged() -> None:
    assert features(a=NEVER, both=ALWAYS) == {"plain": NEVER}
    assert features(a=NEVER, both=OFTEN, free=HASHED) == {"plain": NEVER, "both": NEVER, "free": HASHED}


def test_a_name_that_is_column_and_feature_means_both() -> None:
    found = resolve({"price": HASHED}, ["price"], {"price": ["price"], "twice": ["price"]})
    assert found == Redaction(columns={"price": HASHED}, features={"price": HASHED, "twice": HASHED})


def test_equal_values_stay_equal_and_others_do_not() -> None:
    assert hash_value("n", 3) == hash_value("n", 3.0) == hash_value("n", "3") != hash_value("m", 3)
    assert len({hash_value("n", value) for value in ("x", "y", "", 1, 1.5, True, 2**62)}) == 7
    assert hash_value("tail_number", "N14228") == "sha256:a2bd14904007bd59"  # for ever: stored values are compared


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_the_share_is_kept_within_what_chance_allows(share: float) -> None:
    drawn = sum(is_drawn(UUID(int=number), share) for number in range(20_000))
    assert abs(drawn - 20_000 * share) < 4 * math.sqrt(20_000 * share * (1 - share))


@given(st.uuids(), st.lists(st.floats(0.001, 0.999), min_size=2))
def test_a_draw_is_the_same_for_whoever_knows_the_id_and_a_larger_share_contains_a_smaller(
    prediction: UUID, shares: list[float]
) -> None:
    drawn = [is_drawn(prediction, share) for share in sorted(shares)]
    assert all(before <= after for before, after in pairwise(drawn))
    assert drawn == [is_drawn(str(prediction), share) for share in sorted(shares)]


def loaded(folder: Path, rules: str) -> LoadedPipeline:
    home = write_pipeline(folder).folder
    with (home / "pipeline.yaml").open("a") as file:
        file.write(f"prediction_log: {{columns: {{{rules}}}}}\n")
    return load_pipeline(home)


@pytest.mark.parametrize(
    "rules, told",
    [
        ("town: {log: seldom}", "columns.town.log: invalid enum value 'seldom'"),
        ("town: {}", "columns.town lacks the key 'log'; add it"),
        ("town: never", "columns.town"),
        ("town: {log: never, mask: x}", "unknown key 'mask'; remove it"),
        ("town: {log: sampled}", "columns.town: `log: sampled` needs a `sample` such as 0.01"),
        ("town: {log: hashed, sample: 0.1}", "columns.town: `log: sampled` needs"),
        ("town: {log: sampled, sample: 1.5}", "columns.town.sample"),
        ("id: {log: hashed}", "columns.id: outcomes find predictions by the entity, in clear; remove the rule"),
        ("at: {log: never}", "columns.at: predictions are judged by their event_time"),
        ("delay: {log: never}", "columns.delay: it is known only after the prediction"),
    ],
)
def test_a_rule_that_cannot_hold_is_named_by_line_and_path(tmp_path: Path, rules: str, told: str) -> None:
    with pytest.raises(PipelineInvalid) as raised:
        loaded(tmp_path, rules)
    assert "pipeline.yaml:14: " in str(raised.value)
    assert told in str(raised.value)


def test_a_rule_for_what_is_neither_column_nor_feature_is_refused(tmp_path: Path) -> None:
    pipeline = loaded(tmp_path, "size: {log: never}, id: {log: always}, villa: {log: never}")
    with pytest.raises(PipelineInvalid, match=r"names 'villa', which is neither a column nor a feature"):
        compile_statement(pipeline)


def test_a_release_carries_what_its_rules_mean(tmp_path: Path) -> None:
    rules = LogRules(columns={"town": NEVER, "price": HASHED, "huge": ALWAYS})
    release = build_release(tmp_path, rules=rules).release
    assert release.redaction.columns == {"town": NEVER, "price": HASHED}
    assert release.redaction.features == {"town": NEVER, "size": NEVER, "price": HASHED}
    read = msgspec.json.decode(msgspec.json.encode(release), type=Release)
    assert (read.prediction_log, read.redaction) == (rules, release.redaction)


def test_code_that_knows_no_rules_of_columns_refuses_a_release_with_some_and_takes_all_others() -> None:
    """A predictor of before would log in clear."""

    class Before(msgspec.Struct, forbid_unknown_fields=True):
        delivery: str = "spooled"
        sample: float | None = None

    msgspec.json.decode(msgspec.json.encode(LogRules(sample=0.1)), type=Before)
    with pytest.raises(msgspec.ValidationError, match="columns"):
        msgspec.json.decode(msgspec.json.encode(LogRules(columns={"a": NEVER})), type=Before)


def test_a_release_of_before_rules_withholds_nothing(tmp_path: Path) -> None:
    told = msgspec.to_builtins(build_release(tmp_path).release)
    del told["redaction"]
    assert msgspec.convert(told, Release, strict=False).redaction == Redaction()
