"""What clients are shown of a release's example rows: nothing that its log withholds."""

import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esteira.pipeline import load_pipeline
from esteira.redaction import ColumnRule
from esteira.release import LogRules
from esteira.runtime import ReleaseRuntime
from esteira.schema import Column, check_value
from predictor.app import create_app
from predictor.examples import neutral_value, show_release
from predictor.prediction_log import PredictionLog
from predictor.serving import Servings
from publishers import Nowhere
from releases import build_release, build_release_of, raw_rows, write_pipeline

bounds = st.none() | st.integers(-(2**70), 2**70).map(float) | st.floats(-1e9, 1e9)


@st.composite
def columns(draw: st.DrawFn) -> Column:
    """Columns that take at least one value."""
    kind = draw(st.sampled_from(["integer", "number", "string", "boolean", "timestamp", "date"]))
    if kind in ("integer", "number"):
        low, high = sorted([draw(bounds), draw(bounds)], key=lambda bound: (bound is None, bound))
        if kind == "integer" and low is not None:
            low = min(low, 2.0**62)
        if kind == "integer" and high is not None:
            high = max(high, math.ceil(low or 0), -(2.0**62))
        return Column(name="c", type=kind, nullable=draw(st.booleans()), min=low, max=high)
    length = draw(st.integers(1, 20))
    values = draw(st.none() | st.lists(st.text("ab", max_size=length), min_size=1))
    return Column(name="c", type=kind, nullable=draw(st.booleans()), values=values, max_length=length)


@given(columns())
def test_a_neutral_value_is_one_that_the_column_takes(column: Column) -> None:
    value = neutral_value(column)
    check_value(column, value)
    assert value is None or not column.nullable


@pytest.mark.parametrize("rule", ["never", "hashed"])
def test_no_withheld_column_is_shown_and_what_is_shown_works(tmp_path: Path, rule: str) -> None:
    built = build_release(tmp_path, rules=LogRules(columns={"town": ColumnRule(log=rule)}))  # type: ignore[arg-type]
    towns = {str(row["town"]) for row in built.release.example} - {"None"}
    servings = Servings(tmp_path)
    servings.serve("shop", built.pointer(), built.folder)
    log = PredictionLog(Nowhere(), tmp_path / "spool")  # type: ignore[arg-type]
    client = create_app(servings, log, Nowhere(), None).test_client()  # type: ignore[arg-type]
    described = client.get("/pipelines/shop")
    shown = described.get_json()["example"]
    assert towns
    assert not any(town in described.text or town in client.get("/openapi.json").text for town in towns)
    answer = client.post("/pipelines/shop/predict", json={"rows": shown["rows"]}).get_json()
    assert [prediction["score"] for prediction in answer["predictions"]] == shown["scores"]
    assert [row["price"] for row in shown["rows"]] == [row["price"] for row in built.release.example]


def test_a_release_without_rules_shows_its_example_as_it_is(tmp_path: Path) -> None:
    built = build_release(tmp_path)
    assert show_release(ReleaseRuntime(built.folder, built.sha256)) == built.release


def test_a_row_of_which_no_feature_can_be_made_is_not_shown(tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path / "pipelines")
    value = "CASE WHEN raw.town IS NULL THEN error('no town') IS NULL END"
    (pipeline.folder / "features.sql").write_text(f"SELECT raw.price, raw.town, {value} AS odd FROM raw")
    pipeline = load_pipeline(pipeline.folder)
    rules = LogRules(columns={"town": ColumnRule(log="never")})
    spec = msgspec.structs.replace(pipeline.spec, prediction_log=rules)
    rows = [{**row, "town": row["town"] or "Rome"} for row in raw_rows(200)]
    built = build_release_of(msgspec.structs.replace(pipeline, spec=spec), rows, tmp_path, sqlite=False)
    servings = Servings(tmp_path)
    servings.serve("shop", built.pointer(), built.folder)
    log = PredictionLog(Nowhere(), tmp_path / "spool")  # type: ignore[arg-type]
    client = create_app(servings, log, Nowhere(), None).test_client()  # type: ignore[arg-type]
    assert client.get("/pipelines/shop").get_json()["example"] == {"rows": [], "scores": []}
    assert "example" not in client.get("/openapi.json").text
