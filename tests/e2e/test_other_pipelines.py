"""Nothing in the services knows the reference pipeline: the same loop closes on two others.

Each pipeline's story is played once, the assertions look at what was seen on the way.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from e2e.other_pipelines import (
    PIPELINES,
    Answers,
    Array,
    Client,
    Row,
    Scenario,
    diabetes,
    fetch,
    load_estimator,
    publish,
    stability,
    tumours,
    wait_for,
)
from esteira.bucket import Bucket
from esteira.events import RetrainRequested, encode
from esteira.release import Pointer
from esteira.runtime import ReleaseRuntime
from esteira.schema import check_row
from esteira_cli.stack import Options, Stack
from esteira_cli.stack.loopback import get_json
from esteira_cli.stack.services import SERVICES
from trainer.fit import MODEL_TASK
from trainer.learners import encode_frame, predict_scores

pytestmark = pytest.mark.timeout(240)

SCENARIOS = {scenario.pipeline: scenario for scenario in (tumours(), diabetes())}
PROJECT = BUCKET = "esteira-local"


@dataclass(frozen=True)
class Story:
    """What was seen while a pipeline's loop closed."""

    scenario: Scenario
    first_run: Row
    champion: Pointer
    runtime: ReleaseRuntime
    estimator: Any
    alike: Answers
    known_before: int
    """Predictions whose label the monitor knew before it was told all."""
    before: Row
    """The window's figures once the labels of the rows alike had arrived."""
    shifted: Answers
    after: Row
    """The window's figures once those of the shifted rows had, too."""
    drift: dict[str, Row]
    retraining: Row
    promotion: Row
    retrained: Answers
    """The answers of the next champion to the shifted rows."""

    def judged_rows(self) -> list[Row]:
        """The rows in the last window: without event time the earlier ones are of the same month."""
        return [*(self.scenario.alike if self._is_one_window() else []), *self.scenario.shifted]

    def judged_scores(self) -> Array:
        """The champion's scores of those rows."""
        return np.concatenate([*([self.alike.scores] if self._is_one_window() else []), self.shifted.scores])

    def _is_one_window(self) -> bool:
        return self.runtime.release.event_time is None


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole stack, with these two pipelines and no other; Google's clients find it."""
    stack = Stack(tmp_path_factory.mktemp("other") / "home", PIPELINES, Options(tick_seconds=1.0, durable=False))
    try:
        stack.up()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PUBSUB_EMULATOR_HOST", stack.addresses()["pubsub"])
            patch.setenv("STORAGE_EMULATOR_HOST", stack.addresses()["bucket"])
            yield stack
    finally:
        stack.down(wipe=True)


@pytest.fixture(scope="module")
def bucket(stack: Stack) -> Bucket:
    return Bucket(BUCKET, PROJECT)


@pytest.fixture(scope="module")
def clients(stack: Stack, bucket: Bucket) -> dict[str, Client]:
    """A client for each pipeline, whose first file is uploaded: both first champions are in the making."""
    clients = {name: Client(stack, bucket, name) for name in SCENARIOS}
    for name, client in clients.items():
        client.put("first.csv", SCENARIOS[name].first)
    return clients


@pytest.fixture(scope="module")
def stories(
    clients: dict[str, Client], bucket: Bucket, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, "Future[Story]"]]:
    """Plays all loops at once."""
    caches = {name: tmp_path_factory.mktemp(name) for name in clients}
    with ThreadPoolExecutor(len(clients)) as pool:
        yield {name: pool.submit(_play, SCENARIOS[name], clients[name], bucket, caches[name]) for name in clients}


@pytest.fixture(params=list(SCENARIOS))
def story(request: pytest.FixtureRequest, stories: dict[str, "Future[Story]"]) -> Story:
    """The story of one pipeline, once it has ended."""
    return stories[request.param].result()


def _play(scenario: Scenario, client: Client, bucket: Bucket, cache: Path) -> Story:
    """Plays the loop of one pipeline, from its first file to its second champion."""
    (first_run,) = client.finished_runs("trainer")
    assert first_run["status"] == "promoted", first_run["verdict"]
    version = first_run["release_version"]
    alike = client.served_by(version, [scenario.request(row) for row in scenario.alike])
    runtime, champion = client.runtime(cache)

    half = len(scenario.alike) // 2
    by_file, by_feedback = scenario.alike[:half], scenario.alike[half:]
    client.ingestion(client.put("second.csv", by_file))
    known_before = client.judged(version, half, "insufficient")["labelled"]
    told = client.post("feedback", {"outcomes": [scenario.outcome(row) for row in by_feedback]})
    assert told == {"accepted": len(by_feedback)}
    before = client.judged(version, len(scenario.alike), "not-needed")

    shifted = client.served_by(version, [scenario.request(row) for row in scenario.shifted])
    third = client.ingestion(client.put("third.csv", [*by_feedback, *scenario.shifted]))
    assert third["accepted"] == len(by_feedback) + len(scenario.shifted)
    labelled = len(scenario.shifted) + (len(scenario.alike) if runtime.release.event_time is None else 0)
    after = client.judged(version, labelled, "requested")
    drift = {found["feature"]: found for found in client.get("monitor", "drift")["features"]}

    (retraining,) = client.finished_runs("monitor")
    retrained = client.served_by(
        retraining["release_version"] or version, [scenario.request(row) for row in scenario.shifted]
    )
    return Story(
        scenario=scenario,
        first_run=first_run,
        champion=champion,
        runtime=runtime,
        estimator=load_estimator(bucket, champion, runtime),
        alike=alike,
        known_before=known_before,
        before=before,
        shifted=shifted,
        after=after,
        drift=drift,
        retraining=retraining,
        promotion=client.get("trainer", "promotions")["promotions"][0],
        retrained=retrained,
    )


def test_the_first_champion_comes_from_the_first_file(story: Story) -> None:
    run, release = story.first_run, story.runtime.release
    assert (run["number"], run["dataset_number"], run["verdict"]) == (1, 1, "passed every gate")
    assert (story.champion.generation, release.dataset.rows) == (1, len(story.scenario.first))
    assert (release.pipeline, release.entity) == (story.scenario.pipeline, list(story.scenario.entity))


def test_http_answers_equal_the_release_and_scikit_learn(story: Story) -> None:
    release = story.runtime.release
    rows = [*story.scenario.alike, *story.scenario.shifted]
    typed = [check_row(release.columns, story.scenario.request(row), "") for row in rows]
    assert [problems for _, problems in typed if problems] == []
    features = story.runtime.features([row for row, _ in typed])
    answered = np.concatenate([story.alike.scores, story.shifted.scores])
    assert answered.tolist() == story.runtime.score(features).tolist()
    matrix = encode_frame(release.features, pd.DataFrame(features))
    expected = predict_scores(story.estimator, matrix, MODEL_TASK[release.task])
    assert np.allclose(answered, expected, rtol=1e-12, atol=1e-12)


def test_only_a_classification_is_answered_with_labels(story: Story) -> None:
    threshold = story.runtime.release.threshold
    expected = [None if threshold is None else bool(score >= threshold) for score in story.alike.scores]
    assert story.alike.labels == expected
    assert (threshold is None) == (story.runtime.release.task == "regression")


def test_labels_arrive_by_file_and_by_feedback(story: Story) -> None:
    assert story.known_before == len(story.scenario.alike) // 2
    assert story.before["labelled"] == story.before["requests"] == len(story.scenario.alike)


def test_rows_alike_ask_for_nothing(story: Story) -> None:
    assert story.before["verdicts"][story.scenario.main_metric] in ("ok", "warning")
    assert story.before["decision"] == "not-needed"


def test_the_monitors_figures_are_those_of_scikit_learn(story: Story) -> None:
    labels = story.scenario.labels(story.scenario.alike)
    for name, measure in story.scenario.metrics.items():
        assert story.before[name] == pytest.approx(measure(labels, story.alike.scores), rel=1e-9), name
    labels = story.scenario.labels(story.judged_rows())
    for name, measure in story.scenario.metrics.items():
        assert story.after[name] == pytest.approx(measure(labels, story.judged_scores()), rel=1e-9), name


def test_the_drift_of_each_feature_is_that_of_its_histograms(story: Story) -> None:
    rows = [check_row(story.runtime.release.columns, story.scenario.request(r), "")[0] for r in story.judged_rows()]
    features = story.runtime.features(rows)
    profile = story.runtime.profile()
    expected = {b.name: stability(b.counts, b.count(features[b.name])) for b in profile.features}
    assert {name: found["psi"] for name, found in story.drift.items()} == pytest.approx(expected, rel=1e-9)


def test_the_shift_is_seen_in_features_and_in_performance(story: Story) -> None:
    metric = story.scenario.main_metric
    assert story.after["verdicts"][metric] == story.after["verdicts"]["max_psi"] == "alarm"
    assert story.after["max_psi"] > story.before["max_psi"]
    assert story.drift[story.after["max_psi_feature"]]["verdict"] == "alarm"
    assert story.after[f"{metric}_high"] < story.after[f"{metric}_released"]


def test_the_evidence_leads_to_one_run_on_the_newest_dataset(story: Story) -> None:
    assert story.retraining["reason"] == story.after["reason"]
    assert f"{story.after[story.scenario.main_metric]:.3f}" in story.after["reason"]
    assert (story.retraining["number"], story.retraining["dataset_number"]) == (2, 3)


def test_the_challenger_passes_and_serves(story: Story) -> None:
    assert (story.retraining["status"], story.retraining["verdict"]) == ("promoted", "passed every gate")
    assert story.promotion["release_version"] == story.retraining["release_version"] == story.retrained.model_version
    assert (story.promotion["previous_version"], story.promotion["generation"]) == (story.champion.version, 2)
    labels = story.scenario.labels(story.scenario.shifted)
    errors = [np.abs(labels - answers.scores).mean() for answers in (story.retrained, story.shifted)]
    assert errors[0] < errors[1]


def test_status_shows_every_pipeline(stack: Stack, clients: dict[str, Client]) -> None:
    for client in clients.values():
        client.finished_runs("trainer")
    command = [sys.executable, "-m", "esteira_cli.main", "status", "--json", "--state-dir", str(stack.home)]
    shown = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)
    assert {name: _shown(found) for name, found in shown["pipelines"].items()} == dict.fromkeys(SCENARIOS, True)
    assert {process["state"] for process in shown["processes"]} == {"healthy"}
    assert (shown["dead_lettered"], shown["notes"]) == ({}, [])


@pytest.mark.parametrize(
    "service, path", [("monitor", "/"), ("predictor", "/pipelines"), ("predictor", "/openapi.json")]
)
def test_pages_for_people_tell_of_every_pipeline(
    stack: Stack, clients: dict[str, Client], service: str, path: str
) -> None:
    url = f"{stack.addresses()[service]}{path}"
    wait_for(f"{url} to tell of {', '.join(clients)}", lambda: all(name in fetch(url) for name in clients) or None)


def _shown(found: dict[str, Any]) -> bool:
    return bool(found["champion"] and found["runs"]) and {row["status"] for row in found["ingestions"]} == {"done"}


def test_a_person_is_heeded_once_for_each_event(stack: Stack, clients: dict[str, Client]) -> None:
    client = clients["diabetes"]
    (first,) = client.finished_runs("trainer")
    wish = RetrainRequested(pipeline="diabetes", reason="the scales were mended", requested_by="ann")
    once, again = encode(wish, "ann"), encode(wish, "ann")
    publish(PROJECT, once, once, again)
    wait_for("the wishes to be delivered", lambda: _waiting(stack) == 0 or None)
    runs = client.finished_runs("ann", 2)
    assert [(run["reason"], run["status"] in ("promoted", "rejected")) for run in runs] == [(wish.reason, True)] * 2
    assert all(run["verdict"] for run in runs)
    assert min(run["number"] for run in runs) > first["number"]


def test_no_service_met_an_error(stack: Stack, stories: dict[str, "Future[Story]"]) -> None:
    for story in stories.values():
        story.result()
    lines = [line for name in SERVICES for line in stack.log(name).read_text("utf-8").splitlines()]
    assert lines
    assert [line for line in lines if '"severity":"ERROR"' in line or '"severity":"CRITICAL"' in line] == []


def _waiting(stack: Stack) -> int:
    """How many messages to the trainer are not acknowledged yet."""
    subscriptions = get_json(f"{stack.addresses()['pubsub-http']}/status")["subscriptions"]
    return int(subscriptions[f"projects/{PROJECT}/subscriptions/retrain-requested.trainer"]["outstanding"])
