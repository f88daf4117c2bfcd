"""A shadow scores what the champion answered, and nothing that becomes of it reaches an answer."""

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from esteira.events import PredictionsServed, decode
from esteira.exceptions import Unavailable
from esteira.release import Challenger, LogRules, Pointer
from predictor.app import create_app
from predictor.arms import takes_challenger
from predictor.inference import JsonQuestion
from predictor.prediction_log import PredictionLog
from predictor.sampling import Sampler
from predictor.served import ServedRelease
from predictor.serving import Serving, Servings
from predictor.shadow import Asked, Shadows
from predictor.spool import Header, SpoolWriter
from predictor.spool_reader import Batch, SpoolReader
from publishers import Mailbox, publish_spools
from releases import BuiltRelease, build_release, raw_rows, write_manifest

DEADLINE = 20.0
PREDICT = "/pipelines/shop/predict"
FEATURES = {"price": 3.0, "town": "Rome", "size": 2.0}


def wait_until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class HeldUp:
    """A challenger that scores once it may, and fails where it is told to."""

    def __init__(self, served: ServedRelease) -> None:
        self._served = served
        self.may_go = threading.Event()
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._served, name)

    @property
    def model(self) -> Any:
        return self

    def score(self, matrix: Any) -> Any:
        assert self.may_go.wait(DEADLINE)
        if self.error:
            raise self.error
        return self._served.model.score(matrix)


class Site:
    """A predictor with a champion and, in its shadow, a challenger, on local disk."""

    def __init__(self, folder: Path, one: BuiltRelease, two: BuiltRelease, rows: int = 2000, **log: Any) -> None:
        self.mailbox = Mailbox()
        self.spool = folder / "spool"
        self.log = PredictionLog(self.mailbox, self.spool, **log)  # type: ignore[arg-type]
        self.shadows = Shadows(self.log, rows)
        self.servings = Servings(folder, self.shadows)
        self.one, self.two = one, two
        self.client = create_app(self.servings, self.log, self.mailbox, None).test_client()  # type: ignore[arg-type]
        self.point(0.999)

    def point(self, share: float | None) -> None:
        two = self.two.pointer()
        tried = share and Challenger(version="v2", path=two.path, sha256=two.sha256, share=share, reason="beats v1")
        pointer = msgspec.structs.replace(self.one.pointer(), shadow=tried or None)
        self.servings.serve("shop", pointer, self.one.folder, self.two.folder if share else None)

    def hold_up(self) -> HeldUp:
        serving = self.servings.get("shop")
        assert serving.challenger is not None
        held = HeldUp(serving.challenger)
        self.servings._servings = {"shop": msgspec.structs.replace(serving, challenger=held)}  # type: ignore[arg-type]
        return held

    def ask(self, body: Any, path: str = PREDICT) -> Any:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.data
        return answer.get_json()

    def settle(self) -> list[PredictionsServed]:
        """What is published once nothing waits any more."""
        wait_until(lambda: self.shadows.waiting == 0)
        publish_spools(self.mailbox, self.spool)
        return [decode(PredictionsServed, m.data, m.attributes) for m in self.mailbox.messages]

    def counts(self) -> tuple[int, int, int]:
        found = self.shadows.counts("shop")
        return found.scored, found.failed, found.dropped

    def described(self) -> Any:
        return self.client.get("/pipelines/shop").get_json()["challenger"]


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuiltRelease, BuiltRelease]:
    folder = tmp_path_factory.mktemp("releases")
    return build_release(folder / "one", "v1"), build_release(folder / "two", "v2", seed=5, sqlite=False)


@pytest.fixture
def site(tmp_path: Path, releases: tuple[BuiltRelease, BuiltRelease]) -> Iterator[Site]:
    site = Site(tmp_path, *releases, sampler=Sampler(1.0))
    site.shadows.start()
    yield site
    site.shadows.close()


def test_the_champion_answers_and_the_challengers_scores_are_logged_beside_under_the_same_ids(site: Site) -> None:
    rows = raw_rows(30)
    answer = site.ask({"rows": rows})
    assert answer["model_version"] == "v1"
    served, shadow = sorted(site.settle(), key=lambda event: event.shadow)
    assert (served.model_version, served.shadow) == ("v1", False)
    assert (shadow.model_version, shadow.shadow, shadow.failures) == ("v2", True, 0)
    assert [str(p.id) for p in shadow.predictions] == [p["prediction_id"] for p in answer["predictions"]]
    assert [p.entity for p in shadow.predictions] == [str(row["id"]) for row in rows]
    assert [p.event_time for p in shadow.predictions] == [p.event_time for p in served.predictions]
    challenger = site.servings.get("shop").challenger
    assert challenger is not None
    read = JsonQuestion(msgspec.json.encode({"rows": rows})).read(challenger)
    assert read.rows is not None
    expected = challenger.score_rows(challenger.feature_rows(read.rows)).tolist()
    assert [p.score for p in shadow.predictions] == expected != [p.score for p in served.predictions]
    assert shadow.microseconds > 0
    assert site.counts() == (30, 0, 0)


def test_no_raw_row_of_a_shadow_is_kept(site: Site) -> None:
    site.ask({"rows": raw_rows(20)})
    kept = {event.shadow: [p.row is not None for p in event.predictions] for event in site.settle()}
    assert kept == {False: [True] * 20, True: [False] * 20}


def test_the_share_is_of_entities_and_of_answers_where_there_are_none(site: Site) -> None:
    site.point(0.3)
    for row in raw_rows(60):
        site.ask({"rows": [row]})
    scored = {p.entity for event in site.settle() if event.shadow for p in event.predictions}
    assert scored == {str(i) for i in range(60) if takes_challenger("v2", str(i), 0.3)}
    site.mailbox.messages.clear()
    ids = [site.ask({"features": [FEATURES]})["predictions"][0]["prediction_id"] for _ in range(60)]
    scored = {str(p.id) for event in site.settle() if event.shadow for p in event.predictions}
    assert scored == {id_ for id_ in ids if takes_challenger("v2", id_, 0.3)} != set()


@given(st.uuids(version=4).map(str), st.lists(st.floats(0.001, 0.999), min_size=2))
def test_a_larger_share_takes_no_answer_away_from_the_shadow(prediction: str, shares: list[float]) -> None:
    taken = [takes_challenger("v2", prediction, share) for share in sorted(shares)]
    assert all(before <= after for before, after in pairwise(taken))


@pytest.mark.parametrize(
    "path, body",
    [
        ("/invocations", {"dataframe_records": raw_rows(2)}),
        ("/v1/models/shop:predict", {"instances": raw_rows(2)}),
        ("/v1/models/shop:predict", {"instances": [FEATURES, FEATURES]}),
        (
            "/v2/models/shop/infer",
            {
                "inputs": [
                    {"name": "id", "datatype": "INT64", "shape": [2], "data": [1, 2]},
                    {"name": "at", "datatype": "BYTES", "shape": [2], "data": ["2026-01-01T00:00:00Z"] * 2},
                ]
            },
        ),
    ],
)
def test_every_dialect_has_its_shadow(site: Site, path: str, body: Any) -> None:
    site.ask(body, path)
    assert {(e.model_version, e.shadow, len(e.predictions)) for e in site.settle()} == {
        ("v1", False, 2),
        ("v2", True, 2),
    }


def test_a_shadow_that_fails_is_counted_and_told_and_changes_no_answer(site: Site) -> None:
    held = site.hold_up()
    held.error = RuntimeError("no model")
    held.may_go.set()
    answers = [site.ask({"rows": [row]}) for row in raw_rows(5)]
    assert {answer["model_version"] for answer in answers} == {"v1"}
    failures = {event.shadow: (event.failures, len(event.predictions)) for event in site.settle()}
    assert failures == {False: (0, 5), True: (5, 0)}
    assert site.counts() == (0, 5, 0)


def test_answers_wait_for_no_shadow_and_what_finds_no_room_is_dropped_and_counted(
    tmp_path: Path, releases: tuple[BuiltRelease, BuiltRelease]
) -> None:
    site = Site(tmp_path, *releases, rows=20)
    site.shadows.start()
    held = site.hold_up()
    for row in raw_rows(50):
        assert site.ask({"rows": [row]})["model_version"] == "v1"  # while the challenger stands still
    assert site.shadows.waiting == 20
    state = site.servings.shadows
    assert state is not None
    assert state.counts("shop").dropped == 30
    held.may_go.set()
    shadows = [event for event in site.settle() if event.shadow]
    assert sum(len(event.predictions) for event in shadows) == 20
    assert site.counts() == (20, 0, 30)
    site.shadows.close()


def test_bodies_that_wait_are_bounded_in_bytes(tmp_path: Path, releases: tuple[BuiltRelease, BuiltRelease]) -> None:
    site = Site(tmp_path, *releases)
    padded = msgspec.json.encode({"rows": raw_rows(1)}) + b" " * (1 << 20)
    for _ in range(20):
        assert site.client.post(PREDICT, data=padded, content_type="application/json").status_code == 200
    assert site.shadows.waiting == 15
    assert site.counts() == (0, 0, 5)


def test_at_the_end_what_waits_is_scored(site: Site) -> None:
    held = site.hold_up()
    for row in raw_rows(8):
        site.ask({"rows": [row]})
    held.may_go.set()
    site.shadows.close(DEADLINE)
    assert (site.counts(), site.shadows.waiting) == ((8, 0, 0), 0)
    site.ask({"rows": raw_rows(1)})
    assert site.counts() == (8, 0, 1)


def test_at_the_end_what_takes_too_long_is_counted(site: Site) -> None:
    held = site.hold_up()
    for row in raw_rows(8):
        site.ask({"rows": [row]})
    wait_until(lambda: len(site.shadows._asked) == 7)
    site.shadows.close(0.01)
    assert site.counts() == (0, 0, 7)  # the eighth is being scored
    held.may_go.set()
    wait_until(lambda: site.counts() == (1, 0, 7))


def test_the_log_of_a_strict_pipeline_has_the_answer_before_the_client_and_the_shadow_later(
    tmp_path: Path, releases: tuple[BuiltRelease, BuiltRelease]
) -> None:
    strict = build_release(tmp_path / "strict", "v1")
    sha256 = write_manifest(
        strict.folder, msgspec.structs.replace(strict.release, prediction_log=LogRules(delivery="strict"))
    )
    site = Site(tmp_path, msgspec.structs.replace(strict, sha256=sha256), releases[1])
    site.shadows.start()
    held = site.hold_up()
    site.ask({"rows": raw_rows(3)})
    assert [decode(PredictionsServed, m.data, m.attributes).shadow for m in site.mailbox.messages] == [False]
    site.mailbox.error = Unavailable("away")
    held.may_go.set()
    wait_until(lambda: site.shadows.waiting == 0)
    site.mailbox.error = None
    assert [event.shadow for event in site.settle()] == [False, True]
    site.shadows.close()


def test_the_shadow_is_described_with_what_became_of_it(site: Site) -> None:
    site.ask({"rows": raw_rows(4)})
    site.settle()
    counts = {"scored": 4, "failed": 0, "dropped": 0}
    told = {"version": "v2", "mode": "shadow", "share": 0.999, "reason": "beats v1", "serving": True, "refused": None}
    assert site.described() == {**told, "rows": counts}
    site.point(None)
    assert site.described() is None


def test_a_shadow_that_ends_gives_its_memory_back(site: Site) -> None:
    site.ask({"rows": raw_rows(4)})
    site.settle()
    ended = weakref.ref(site.servings.get("shop").challenger.query)  # type: ignore[union-attr]
    site.point(None)
    wait_until(lambda: ended() is None)


def test_requests_that_nobody_tries_out_meet_no_shadow(site: Site) -> None:
    site.point(None)
    site.ask({"rows": raw_rows(4)})
    assert [(event.model_version, event.shadow) for event in site.settle()] == [("v1", False)]


def test_a_pointer_of_before_shadows_is_read(releases: tuple[BuiltRelease, BuiltRelease]) -> None:
    old = {n: v for n, v in msgspec.to_builtins(releases[0].pointer()).items() if n != "shadow"}
    assert msgspec.convert(old, Pointer, strict=False).tried is None


def test_answers_and_shadows_of_one_release_are_told_apart(tmp_path: Path) -> None:
    """Promoted meanwhile: the release answers already while its last shadows wait to be published."""
    mailbox = Mailbox()
    log = PredictionLog(mailbox, tmp_path)  # type: ignore[arg-type]
    log.count_failures("shop", "v2", 1)
    log.count_failures("shop", "v2", 2, shadow=True)
    log.count_failures("shop", "v2", 3)
    publish_spools(mailbox, tmp_path)
    told = [decode(PredictionsServed, m.data, m.attributes) for m in mailbox.messages]
    assert [(event.shadow, event.failures) for event in told] == [(False, 4), (True, 2)]
    assert len({message.attributes["ce-id"] for message in mailbox.messages}) == 2


def test_after_a_crash_shadows_are_told_again_under_the_same_id(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    writer.append(Header("shop", "v2", 1, 7, shadow=True), b'{"b":1}')
    assert writer.folder is not None
    first, again = (SpoolReader(writer.folder).take(500, 1 << 20) for _ in range(2))
    assert first == again
    assert first is not None
    assert first.event_id("shop", "v2", shadow=True) != first.event_id("shop", "v2")


def test_a_record_of_before_shadows_is_an_answer(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "00000001.log").write_bytes(b'["shop","v1",1,5,0]\t{"a":1}\n')
    batch = SpoolReader(folder).take(500, 1 << 20)
    assert isinstance(batch, Batch)
    assert batch.records[0].header.shadow is False


def test_a_request_that_the_challenger_refuses_is_told_without_its_values(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    serving = site.servings.get("shop")
    assert isinstance(serving, Serving)
    assert serving.challenger is not None
    body = msgspec.json.encode({"rows": [{**raw_rows(1)[0], "town": "secret" * 9}]})
    site.shadows.offer(Asked(serving.challenger, JsonQuestion(body).read, ["1" * 36]))
    site.settle()
    (line,) = [record for record in caplog.records if record.getMessage().startswith("shadow failed")]
    assert line.error == "refuses rows[0].town"  # type: ignore[attr-defined]


def test_the_description_is_as_openapi_tells(site: Site) -> None:
    document = site.client.get("/openapi.json").get_json()
    answer = document["paths"]["/pipelines/shop"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    for share in (0.2, None):
        site.point(share)
        Draft202012Validator(answer).validate(site.client.get("/pipelines/shop").get_json())
    challenger = answer["properties"]["challenger"]["anyOf"][0]
    site.point(0.2)
    assert set(site.described()) == set(challenger["properties"])
