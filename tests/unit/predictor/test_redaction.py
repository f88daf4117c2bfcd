"""What a release withholds is in no spool and in no message, whoever asks and however."""

import logging
import math
import string
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esteira.events import Prediction, PredictionsServed, decode
from esteira.exceptions import BadInput, Problem
from esteira.pipeline import load_pipeline
from esteira.redaction import ColumnRule, Redaction, hash_value, is_drawn
from esteira.release import Challenger, LogRules
from predictor.app import create_app
from predictor.prediction_log import PredictionLog
from predictor.records import tell_failure
from predictor.redaction import Redactor
from predictor.sampling import Sampler
from predictor.serving import Servings
from predictor.shadow import Shadows
from publishers import Mailbox, publish_spools
from releases import BuiltRelease, build_release, build_release_of, raw_rows, write_pipeline

ALWAYS, HASHED, NEVER = ColumnRule(log="always"), ColumnRule(log="hashed"), ColumnRule(log="never")
SAMPLED = ColumnRule(log="sampled", sample=0.3)
PREDICT = "/pipelines/shop/predict"
PRICE, HUGE, TOWN, SIZE = range(4)
"""The features of the shop, in their order."""


class Shop:
    """A predictor over one release, with another beside it."""

    def __init__(self, folder: Path, rules: LogRules, tried: str = "", share: float = 0.999) -> None:
        self.spool = folder / "spool"
        self.mailbox = Mailbox()
        self.log = PredictionLog(self.mailbox, self.spool, Sampler(1.0))  # type: ignore[arg-type]
        self.shadows = Shadows(self.log)
        self.shadows.start()
        servings = Servings(folder, self.shadows)
        one, two = (
            build_release(folder / "1", "v1", rules=rules),
            build_release(folder / "2", "v2", seed=5, rules=rules),
        )
        pointer = msgspec.structs.replace(one.pointer(), **({tried: named(two, share)} if tried else {}))
        servings.serve("shop", pointer, one.folder, two.folder if tried else None)
        self.servings = servings
        self.client = create_app(servings, self.log, self.mailbox, None).test_client()  # type: ignore[arg-type]

    def ask(self, body: Any, path: str = PREDICT) -> None:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.data

    def settle(self) -> bytes:
        """All that lies on disk, once nothing waits any more."""
        deadline = time.monotonic() + 20
        while self.shadows.waiting:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        return b"".join(path.read_bytes() for path in sorted(self.spool.rglob("*")) if path.is_file())

    def logged(self) -> list[Prediction]:
        self.settle()
        publish_spools(self.mailbox, self.spool)
        events = [decode(PredictionsServed, m.data, m.attributes) for m in self.mailbox.messages]
        return [prediction for event in events for prediction in event.predictions]


def named(built: BuiltRelease, share: float) -> Challenger:
    pointer = built.pointer()
    return Challenger(version=pointer.version, path=pointer.path, sha256=pointer.sha256, share=share)


def asked_in_every_dialect(rows: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    features = [{"price": row["price"], "town": row["town"]} for row in rows]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    kinds = {"id": "INT64", "at": "BYTES", "price": "FP64", "town": "BYTES"}
    tensors = [{"name": n, "datatype": kinds[n], "shape": [len(rows)], "data": columns[n]} for n in columns]
    yield PREDICT, {"rows": rows}
    yield PREDICT, {"features": features}
    yield "/invocations", {"dataframe_records": rows}
    yield "/invocations", {"dataframe_split": {"columns": list(columns), "data": [list(row.values()) for row in rows]}}
    yield "/v1/models/shop:predict", {"instances": rows}
    yield "/v1/models/shop:predict", {"inputs": columns}
    yield "/v2/models/shop/infer", {"inputs": tensors}


MODES = [("spooled", ""), ("strict", ""), ("spooled", "challenger"), ("spooled", "shadow"), ("strict", "shadow")]


@pytest.fixture(scope="module", params=MODES, ids=["-".join(filter(None, mode)) for mode in MODES])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    delivery, tried = request.param
    shop = Shop(
        tmp_path_factory.mktemp("shop"), LogRules(delivery=delivery, columns={"town": NEVER, "price": HASHED}), tried
    )
    yield shop
    shop.shadows.close()


towns = st.text(string.ascii_uppercase, min_size=9, max_size=20)
prices = st.integers(10**9, 10**12).map(lambda thousandths: (thousandths * 2 + 1) / 2000)


@given(st.lists(st.tuples(towns, prices), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_withheld_value_is_in_no_spool_no_message_and_no_log(
    shop: Shop, caplog: pytest.LogCaptureFixture, secrets: list[tuple[str, float]]
) -> None:
    caplog.set_level(logging.DEBUG)
    rows = [{**row, "town": t, "price": p} for row, (t, p) in zip(raw_rows(4), secrets, strict=False)]
    shop.mailbox.messages.clear()
    for path, body in asked_in_every_dialect(rows):
        shop.ask(body, path)
    on_disk = shop.settle()
    assert len(shop.logged()) >= 7 * len(rows)
    told = on_disk + b"".join(message.data for message in shop.mailbox.messages) + said(caplog).encode()
    for town, price in secrets:
        assert town.encode() not in told
        assert repr(price).encode() not in told
        assert hash_value("price", price).encode() in told


def said(caplog: pytest.LogCaptureFixture) -> str:
    """All that the service's own log holds, tracebacks too."""
    return "\n".join(f"{vars(record)} {caplog.handler.format(record)}" for record in caplog.records)


FAILING = {
    "a function's own error": "strptime(raw.town, '%Y') > '2013-01-01'",
    "an error of the pipeline's": "error('no ' || raw.town) IS NULL",
    "a cast": "raw.town::INTEGER > 1",
    "a time zone": "timezone(raw.town, TIMESTAMP '2013-01-01') > '2013-01-01'",
}


def build_failing(folder: Path, value: str) -> BuiltRelease:
    """A release that fails for towns that begin with N."""
    pipeline = write_pipeline(folder / "pipelines")
    sql = f"SELECT raw.price, raw.town, CASE WHEN raw.town LIKE 'N%' THEN {value} END AS odd FROM raw"
    (pipeline.folder / "features.sql").write_text(sql)
    pipeline = load_pipeline(pipeline.folder)
    spec = msgspec.structs.replace(pipeline.spec, prediction_log=LogRules(columns={"town": NEVER}))
    return build_release_of(msgspec.structs.replace(pipeline, spec=spec), raw_rows(200), folder, "v2", sqlite=False)


@pytest.mark.parametrize("value", FAILING.values(), ids=FAILING.keys())
def test_a_value_that_no_feature_can_be_made_of_is_told_to_its_client_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    caplog.set_level(logging.DEBUG)
    failing = build_failing(tmp_path / "failing", value)
    body = {"rows": [{**raw_rows(1)[0], "town": "Nowhere-42"}]}
    for tried in ("challenger", "shadow"):
        shop = Shop(tmp_path / tried, LogRules(columns={"town": NEVER}))
        pointer = msgspec.structs.replace(shop.servings.get("shop").pointer, **{tried: named(failing, 0.999)})
        shop.servings.serve("shop", pointer, tmp_path / tried / "1" / "v1", failing.folder)
        shop.ask(body)
        shop.settle()
        shop.shadows.close()
        assert "failed" in said(caplog)
    shop.servings.serve("shop", failing.pointer(), failing.folder)
    answers = [shop.client.post(path, json=body) for path in (PREDICT, "/pipelines/shop/predict?slowly")]
    answers.append(shop.client.post("/invocations", json={"dataframe_records": body["rows"]}))
    assert {answer.status_code for answer in answers} == {400}
    assert all("Nowhere-42" in answer.text for answer in answers)
    assert "Nowhere-42" not in said(caplog)


def test_what_other_libraries_say_of_a_failure_is_not_told() -> None:
    assert tell_failure(ValueError("could not convert string to float: 'Rome'")) == "ValueError"
    assert tell_failure(BadInput([Problem("rows[0].town", "is 'Rome'")])) == "refuses rows[0].town"


def one_shop(folder: Path, **rules: ColumnRule) -> Shop:
    shop = Shop(folder, LogRules(columns=rules))
    shop.ask({"rows": raw_rows(40)})
    return shop


def test_what_is_never_logged_is_missing_from_features_and_what_derives_from_it_too(tmp_path: Path) -> None:
    logged = one_shop(tmp_path, town=NEVER).logged()
    assert all(p.features[TOWN] is None and p.features[SIZE] is None for p in logged)
    assert [p.features[PRICE] for p in logged] == [row["price"] for row in raw_rows(40)]
    assert all(p.row is None for p in logged)  # it could be replayed neither as a row nor from features


def test_features_that_a_client_sends_are_withheld_too(tmp_path: Path) -> None:
    shop = Shop(tmp_path, LogRules(columns={"town": NEVER}))
    shop.ask({"features": [{"price": 2.5, "town": "Rome", "size": 2.0}]})
    assert [p.features for p in shop.logged()] == [[2.5, None, None, None]]


def test_hashed_values_stay_equal_where_they_were(tmp_path: Path) -> None:
    rows, logged = raw_rows(40), one_shop(tmp_path, town=HASHED, size=ALWAYS).logged()
    expected = [None if row["town"] is None else hash_value("town", row["town"]) for row in rows]
    assert [p.features[TOWN] for p in logged] == expected
    assert {p.features[SIZE] for p in logged} == {1.0, 2.0, 3.0, None}
    assert len(set(expected)) == 5


def test_sampled_values_are_those_of_the_predictions_that_are_drawn(tmp_path: Path) -> None:
    rows, logged = raw_rows(40), one_shop(tmp_path, town=SAMPLED).logged()
    drawn = [is_drawn(p.id, 0.3) for p in logged]
    assert 0 < sum(drawn) < 40
    for row, p, clear in zip(rows, logged, drawn, strict=True):
        assert p.features[TOWN] == (row["town"] if clear else None)
        assert p.row == (row if clear else None)


def test_a_row_is_kept_without_its_column_where_it_can_be_replayed_from_its_features() -> None:
    redactor = Redactor(Redaction(columns={"name": NEVER, "tail": HASHED}), ["speed"])
    row, ids = {"name": "Ada", "tail": "N1", "speed": 4, "seat": None}, [f"{n}" for n in range(4)]
    kept = redactor.redact_rows(ids, dict.fromkeys(range(4), row), [[4.0], [None], [math.inf], [math.nan]])
    hidden = {"tail": hash_value("tail", "N1"), "speed": 4, "seat": None}
    assert kept == {0: hidden, 1: hidden}  # what is not finite is logged as missing, and would score otherwise
    assert row["name"] == "Ada"


def test_a_row_whose_features_are_withheld_is_not_kept() -> None:
    redactor = Redactor(Redaction(columns={"name": NEVER}, features={"initial": NEVER}), ["initial"])
    assert redactor.redact_rows(["1"], {0: {"name": "Ada"}}, [["A"]]) == {}


def test_a_release_without_rules_has_nothing_in_the_way(tmp_path: Path) -> None:
    shop = one_shop(tmp_path)
    assert [p.row for p in shop.logged()] == raw_rows(40)
