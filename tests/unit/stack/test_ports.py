"""Ports are held, remembered, and never taken from anyone."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeloop.stack import ports
from edgeloop.stack.ports import (
    HOST,
    HeldPorts,
    PortTaken,
    UnknownPart,
    choose_ports,
    default_port,
    earlier_ports,
    first_ephemeral,
    is_free,
)


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as server:
        yield int(server.getsockname()[1])


def test_a_listener_makes_a_port_taken(listener: int) -> None:
    assert not is_free(listener)


def test_a_port_is_free_again_after_its_listener() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = int(server.getsockname()[1])
    assert is_free(port)


def test_a_free_port_is_held_until_released() -> None:
    with HeldPorts() as held:
        port = held.hold_any("mlflow")
        with (
            pytest.raises(OSError),
            socket.create_server((HOST, port), reuse_port=False),
        ):
            pass
        held.release("mlflow")
        with socket.create_server((HOST, port)) as server:
            assert server.getsockname()[1] == port


def test_a_wanted_port_that_is_taken_is_refused_by_name(tmp_path: Path, listener: int) -> None:
    with pytest.raises(PortTaken, match=rf"port {listener} of mlflow .*--port mlflow=.*--free-ports"):
        choose_ports(["mlflow"], tmp_path, {"mlflow": listener}, free=True)


def test_a_port_of_a_part_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UnknownPart, match=r"--port prefekt=.*it has prefect, edge-1$"):
        choose_ports(["prefect", "edge-1"], tmp_path, {"prefekt": 4201}, free=True)
    assert not (tmp_path / "ports.json").exists()


def test_ports_are_kept_over_restarts(tmp_path: Path) -> None:
    with choose_ports(["prefect", "edge-1"], tmp_path, free=True) as first:
        numbers = dict(first.numbers)
    with choose_ports(["prefect", "edge-1"], tmp_path) as second:
        assert second.numbers == numbers


def test_an_earlier_port_that_is_taken_is_replaced_only_when_any_will_do(tmp_path: Path, listener: int) -> None:
    (tmp_path / "ports.json").write_text(json.dumps({"broker": listener}))
    with pytest.raises(PortTaken):
        choose_ports(["broker"], tmp_path)
    with choose_ports(["broker"], tmp_path, free=True) as held:
        assert held.numbers["broker"] != listener


def test_parts_get_different_ports(tmp_path: Path) -> None:
    names = [f"edge-{number}" for number in range(1, 21)]
    with choose_ports(names, tmp_path, free=True) as held:
        assert len(set(held.numbers.values())) == 20


def test_a_failed_choice_holds_nothing(tmp_path: Path, listener: int) -> None:
    with socket.create_server((HOST, 0)) as server:
        free = int(server.getsockname()[1])
    with pytest.raises(PortTaken):
        choose_ports(["prefect", "mlflow"], tmp_path, {"prefect": free, "mlflow": listener})
    assert is_free(free)


@pytest.mark.parametrize(
    ("part", "port"),
    [("prefect", 4200), ("mlflow", 5000), ("broker", 1883), ("edge-3", 8083)],
)
def test_default_ports(part: str, port: int) -> None:
    assert default_port(part) == port


@pytest.mark.parametrize("text", ["", "[]", '{"broker": "x"}', '{"broker": null}'])
def test_an_unreadable_record_of_ports_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "ports.json").write_text(text)
    assert earlier_ports(tmp_path) == {}


def test_a_free_port_is_none_that_an_outgoing_connection_gets() -> None:
    with HeldPorts() as held, socket.create_server((HOST, 0)) as server:
        port = held.hold_any("mlflow")
        with socket.create_connection(server.getsockname()[:2]) as link:
            assert port < first_ephemeral() <= link.getsockname()[1]


@pytest.mark.parametrize("first", [1024, 20000, 20010, 32768, 60999])
def test_a_free_port_is_found_whatever_the_system_gives_out(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "first_ephemeral", lambda: first)
    with HeldPorts() as held:
        assert 0 < held.hold_any("mlflow") < 2**16
