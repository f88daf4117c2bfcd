from typing import Any

import msgspec
import pytest

from esteira.pipeline import Monitoring, Retraining
from monitor.decision import Decision, Evidence, Training, decide
from monitor.performance import Estimate

FINE = Evidence(
    metric="auc",
    labelled=1000,
    performance=Estimate(0.702, 0.68, 0.724),
    released=0.71,
    score_bias=Estimate(0.02, -0.03, 0.07),
)
NEW_DATA = Training(dataset_number=2, dataset_rows=2000, champion_dataset_rows=1000)
MONITORING = Monitoring(min_outcomes=400)
RETRAINING = Retraining(max_performance_loss=0.02, max_calibration_bias=0.12, min_new_rows=0.1)
WORSE = {"performance": Estimate(0.65, 0.63, 0.67)}


def decided(evidence: dict[str, Any] | None = None, training: dict[str, Any] | None = None, **policy: Any) -> Decision:
    return decide(
        msgspec.structs.replace(FINE, **(evidence or {})),
        msgspec.structs.replace(NEW_DATA, **(training or {})),
        MONITORING,
        msgspec.structs.replace(RETRAINING, **policy),
    )


def test_a_loss_within_the_tolerance_needs_nothing_and_says_so() -> None:
    found = decided()
    assert found.decision == "not-needed"
    assert found.reason == (
        "AUC 0.702 (0.680 to 0.724) is within 0.02 of the 0.710 it was released with; "
        "scores are 2% (-3% to +7%) above what was observed"
    )


def test_an_interval_beyond_the_tolerance_asks_for_retraining() -> None:
    found = decided(WORSE)
    assert found.decision == "requested"
    assert found.reason == (
        "AUC 0.650 (0.630 to 0.670) lies below 0.690, the allowed 0.02 under the 0.710 it was released with"
    )
    assert found.evidence["performance"] == {"value": 0.65, "low": 0.63, "high": 0.67}
    assert found.evidence["dataset_number"] == 2


def test_a_loss_that_may_be_chance_asks_for_nothing() -> None:
    found = decided({"performance": Estimate(0.68, 0.66, 0.70)})
    assert found.decision == "not-needed"
    assert "may be chance" in found.reason


@pytest.mark.parametrize("bias", [Estimate(0.2, 0.13, 0.27), Estimate(-0.2, -0.27, -0.13)])
def test_scores_that_are_off_on_either_side_ask_for_retraining(bias: Estimate) -> None:
    assert decided({"score_bias": bias}).decision == "requested"


@pytest.mark.parametrize("bias", [Estimate(0.2, 0.11, 0.29), Estimate(-0.2, -0.29, -0.11), None])
def test_scores_that_may_be_off_by_chance_do_not(bias: Estimate | None) -> None:
    assert decided({"score_bias": bias}).decision == "not-needed"


def test_all_that_is_wrong_is_told() -> None:
    assert decided({**WORSE, "score_bias": Estimate(0.2, 0.13, 0.27)}).reason.count(" and scores are 20%") == 1


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        ({"labelled": 399}, "399 predictions have their outcome, 400 are needed"),
        ({"performance": None}, "all alike"),
        ({"released": None}, "nothing to compare with"),
    ],
)
def test_what_cannot_be_judged_is_insufficient(lacking: dict[str, Any], reason: str) -> None:
    found = decided({**WORSE, **lacking})
    assert found.decision == "insufficient"
    assert reason in found.reason


@pytest.mark.parametrize(
    ("training", "reason"),
    [
        ({"dataset_rows": 1099}, "99 labelled rows are new since the champion was trained, 100 are needed"),
        ({"run_number": 4, "run_status": "running"}, "training run 4 is not finished"),
        ({"run_number": 4, "run_status": "rejected", "run_reason": "worse"}, "ended as rejected (worse)"),
        ({"requested_for": 2}, "requested already"),
    ],
)
def test_evidence_waits_while_training_would_not_help(training: dict[str, Any], reason: str) -> None:
    found = decided(WORSE, training)
    assert found.decision == "not-yet"
    assert reason in found.reason
    assert found.waits_for == (4 if training.get("run_status") == "running" else None)


def test_a_request_for_older_data_does_not_stand_in_the_way() -> None:
    assert decided(WORSE, {"requested_for": 1}).decision == "requested"


def test_people_may_switch_it_off() -> None:
    assert decided(WORSE, automatic=False).decision == "not-yet"
