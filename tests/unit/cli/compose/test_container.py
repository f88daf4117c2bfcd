import json
import time
from typing import Any

import msgspec
import pytest

from esteira_cli.compose.container import Container, read_containers
from unit.cli.compose.docker import inspected


def _read(**described: Any) -> Container:
    return read_containers(json.dumps([inspected("etl", **described)]))["etl"]


@pytest.mark.parametrize(
    ("described", "phase"),
    [
        ({}, "healthy"),
        ({"health": "starting"}, "starting"),
        ({"health": "healthy"}, "healthy"),
        ({"health": "unhealthy"}, "unhealthy"),
        ({"status": "created"}, "starting"),
        ({"status": "restarting", "restarts": 1, "exit_code": 3}, "starting"),
        ({"status": "restarting", "restarts": 3, "exit_code": 3}, "failed"),
        ({"status": "exited", "exit_code": 137}, "down"),
        ({"status": "running", "policy": ""}, "starting"),
        ({"status": "exited", "policy": ""}, "done"),
        ({"status": "exited", "policy": "no", "exit_code": 1}, "failed"),
    ],
)
def test_a_container_is_as_far_as_docker_says(described: dict[str, Any], phase: str) -> None:
    assert _read(**described).phase == phase


def test_a_one_shot_that_runs_is_not_done_yet() -> None:
    assert _read(policy="no").phase == "starting"


@pytest.mark.parametrize(
    ("described", "told"),
    [
        ({"health": "unhealthy"}, "is unhealthy"),
        ({"status": "exited", "exit_code": 3}, "ended with code 3"),
        ({"status": "exited", "exit_code": 137, "out_of_memory": True}, "ended for want of memory"),
        ({"status": "restarting", "exit_code": 3, "restarts": 4}, "ended with code 3; the engine started it again 4"),
    ],
)
def test_a_complaint_says_what_happened(described: dict[str, Any], told: str) -> None:
    assert _read(**described).complaint().startswith(told)


def test_uptime_is_counted_from_the_last_start() -> None:
    assert (_read().uptime_s or 0) == pytest.approx(time.time() - 1795489917.284, abs=5)
    assert _read(status="exited").uptime_s is None


def test_containers_are_found_by_service_and_others_left_out() -> None:
    stranger = {**inspected("x"), "Config": {"Labels": None}}
    found = read_containers(json.dumps([inspected("etl"), stranger, inspected("monitor")]))
    assert {name: container.id for name, container in found.items()} == {"etl": "id-etl", "monitor": "id-monitor"}


def test_another_answer_is_refused() -> None:
    with pytest.raises(msgspec.MsgspecError):
        read_containers('[{"Id": "a"}]')
