import socket
from pathlib import Path

import pytest

from esteira_cli.compose.errors import ComposeError
from esteira_cli.compose.ports import PUBLISHED, addresses, port_variables, read_ports, settle_ports

pytestmark = pytest.mark.enable_socket


def test_ports_are_chosen_once_and_kept(tmp_path: Path) -> None:
    first = settle_ports(tmp_path / "ports.json", [])
    assert set(first) == set(PUBLISHED)
    assert len(set(first.values())) == len(PUBLISHED)
    assert settle_ports(tmp_path / "ports.json", []) == first == read_ports(tmp_path / "ports.json")


def test_a_port_that_is_taken_moves_but_not_that_of_a_running_container(tmp_path: Path) -> None:
    first = settle_ports(tmp_path / "ports.json", [])
    with socket.create_server(("127.0.0.1", first["etl"])), socket.create_server(("127.0.0.1", first["monitor"])):
        second = settle_ports(tmp_path / "ports.json", ["monitor"])
    assert {name for name in PUBLISHED if first[name] != second[name]} == {"etl"}
    assert read_ports(tmp_path / "ports.json") == second


def test_ports_that_cannot_be_read_are_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text("{")
    with pytest.raises(ComposeError, match=r"ports\.json cannot be read: .*; remove it"):
        read_ports(tmp_path / "ports.json")


def test_compose_is_told_each_port_and_the_user_each_address() -> None:
    ports = {name: 20000 + number for number, name in enumerate(PUBLISHED)}
    assert port_variables(ports)["ETL_PORT"] == str(ports["etl"])
    assert addresses(ports)["postgres"] == f"127.0.0.1:{ports['postgres']}"
    assert addresses(ports)["predictor"] == f"http://127.0.0.1:{ports['predictor']}"
