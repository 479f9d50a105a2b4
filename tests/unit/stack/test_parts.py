"""The parts of a plan: what they are told, and what is written for them."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from edgeloop.edge.config import load_node_settings
from edgeloop.edge.releases.channel import read_root
from edgeloop.errors import MissingExtra
from edgeloop.stack.configs import node_config
from edgeloop.stack.parts import NoRooms, NoServices, broker_part, build_parts
from edgeloop.stack.plan import StackPlan, build_addresses
from edgeloop.stack.processes import MARK

PORTS = {"prefect": 1, "mlflow": 2, "broker": 3, "page": 6, "edge-1": 4, "edge-2": 5}


@pytest.fixture
def plan(tmp_path: Path) -> StackPlan:
    rooms = tmp_path / "rooms"
    (rooms / "deployments").mkdir(parents=True)
    (rooms / "deployments" / "register.py").touch()
    return StackPlan(home=tmp_path / "home", rooms=rooms, services=["wine-rater"], page=True)


def test_parts_come_after_those_they_need(plan: StackPlan) -> None:
    seen: set[str] = set()
    for part in build_parts(plan, PORTS, {MARK: "x"}):
        assert set(part.needs) <= seen
        seen.add(part.name)
    assert seen == {
        "prefect",
        "mlflow",
        "broker",
        "register",
        "runner",
        "edge-1",
        "edge-2",
        "page",
    }


def test_every_part_is_pointed_at_this_stack(plan: StackPlan) -> None:
    outside = {
        "PREFECT_API_URL": "https://elsewhere",
        "PREFECT_API_KEY": "secret",
        "MLFLOW_TRACKING_URI": "https://elsewhere",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": "/bin",
        "NO_PROXY": "example.org",
    }
    for part in build_parts(plan, PORTS, {MARK: "x"}, outside):
        assert "elsewhere" not in " ".join(part.env.values())
        assert not {"PREFECT_API_KEY", "PYTHONDONTWRITEBYTECODE"} & set(part.env)
        assert part.env["PREFECT_API_URL"] == "http://127.0.0.1:1/api"
        assert part.env["DO_NOT_TRACK"] == "1"
        assert part.env["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/bin"]
        assert part.env["NO_PROXY"] == "example.org,127.0.0.1,localhost"
        assert part.env[MARK] == "x"
        assert Path(part.env["EDGELOOP_HOME"]).is_absolute()


def test_flows_are_found_first_in_the_rooms(plan: StackPlan) -> None:
    parts = {part.name: part for part in build_parts(plan, PORTS, {}, {"PYTHONPATH": "/extra"})}
    for name in ("register", "runner"):
        assert parts[name].env["PYTHONPATH"].startswith(f"{plan.rooms}:/extra")
        assert parts[name].cwd == plan.rooms
    assert parts["edge-1"].env["PYTHONPATH"].startswith("/extra")
    assert str(plan.rooms) not in parts["edge-1"].env["PYTHONPATH"]


def test_prefect_takes_another_database(plan: StackPlan) -> None:
    other = StackPlan(
        home=plan.home,
        rooms=plan.rooms,
        services=["x"],
        database="postgresql+asyncpg://db/prefect",
    )
    name = "PREFECT_API_DATABASE_CONNECTION_URL"
    with_it, without = (
        next(part for part in build_parts(p, PORTS, {}, {}) if part.name == "prefect") for p in (other, plan)
    )
    assert with_it.env[name] == "postgresql+asyncpg://db/prefect"
    assert name not in without.env


@pytest.mark.parametrize("version", ["3.17.2", "3.18.0"])
def test_mlflow_is_told_its_stores(plan: StackPlan, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(metadata, "version", lambda _name: version)
    part = next(part for part in build_parts(plan, PORTS, {}, {}) if part.name == "mlflow")
    told = " ".join([*part.command, *part.env.values()])
    assert f"sqlite:///{plan.home}/mlflow/mlflow.db" in told
    assert f"{plan.home}/mlflow/artifacts" in told
    assert ("uvicorn" in part.command) == version.startswith("3.17.")


def test_a_node_reads_what_is_written_for_it(plan: StackPlan) -> None:
    build_parts(plan, PORTS, {}, {})
    first, second = (load_node_settings(plan.home / "nodes" / f"edge-{n}" / "node.yaml", {}) for n in (1, 2))
    assert (first.node, first.ring, second.node, second.ring) == (
        "edge-1",
        0,
        "edge-2",
        1,
    )
    assert second.http == "127.0.0.1:5"
    assert second.broker == "mqtt://127.0.0.1:3"
    assert second.store == str(plan.home / "store")
    assert first.state != second.state


def test_nodes_get_the_root_that_they_trust(plan: StackPlan) -> None:
    build_parts(replace(plan, root=b'{"signed": {"_type": "root"}}'), PORTS, {})
    settings = load_node_settings(plan.home / "nodes" / "edge-1" / "node.yaml", {})
    assert settings.trust == plan.home / "nodes" / "edge-1" / "root.json"
    assert read_root(settings.trust) == b'{"signed": {"_type": "root"}}'
    build_parts(plan, PORTS, {})
    assert load_node_settings(plan.home / "nodes" / "edge-1" / "node.yaml", {}).trust is None


def test_devices_are_shared_where_the_broker_can(plan: StackPlan) -> None:
    addresses = build_addresses(plan, PORTS)
    shared, own = (node_config(plan, 2, addresses, shared) for shared in (True, False))
    assert (shared["group"], shared.get("devices")) == ("nodes", None)
    assert (own.get("group"), own["devices"]) == (None, ["device-2"])


def test_rings_can_be_chosen(plan: StackPlan) -> None:
    chosen = StackPlan(home=plan.home, rooms=plan.rooms, services=["x"], nodes=3, rings={3: 7})
    assert [chosen.ring(number) for number in (1, 2, 3)] == [0, 1, 7]


def test_mosquitto_and_amqtt_listen_on_loopback(plan: StackPlan) -> None:
    addresses = build_addresses(plan, PORTS)
    mosquitto = broker_part(plan, 3, addresses, {}, "/usr/sbin/mosquitto")
    amqtt = broker_part(plan, 3, addresses, {}, None)
    assert "\nlistener 3 127.0.0.1\n" in Path(mosquitto.command[-1]).read_text()
    assert yaml.safe_load(Path(amqtt.command[-1]).read_text())["listeners"]["default"]["bind"] == "127.0.0.1:3"


def test_nodes_need_a_service(plan: StackPlan) -> None:
    with pytest.raises(NoServices, match="2 nodes and no service"):
        build_parts(StackPlan(home=plan.home, rooms=plan.rooms, services=[]), PORTS, {})


def test_a_runner_needs_the_rooms(plan: StackPlan, tmp_path: Path) -> None:
    with pytest.raises(NoRooms, match="EDGELOOP_ROOMS"):
        build_parts(StackPlan(home=plan.home, rooms=tmp_path, services=["x"]), PORTS, {})
    without = StackPlan(home=plan.home, rooms=tmp_path, services=["x"], runner=False)
    assert "runner" not in [part.name for part in build_parts(without, PORTS, {})]


def test_a_missing_package_names_the_extra(plan: StackPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_name: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(MissingExtra, match=r"edgeloop\[cloud\]"):
        build_parts(plan, PORTS, {})


def test_the_page_waits_for_nobody_and_can_be_left_out(plan: StackPlan) -> None:
    page = next(part for part in build_parts(plan, PORTS, {}, {}) if part.name == "page")
    assert (page.needs, page.address) == ((), "http://127.0.0.1:6")
    assert page.command[-2:] == ("--port", "6")
    assert str(plan.home) in page.command
    without = replace(plan, page=False)
    assert "page" not in without.listening
    assert "page" not in [part.name for part in build_parts(without, PORTS, {}, {})]
    assert "page" not in build_addresses(without, PORTS)


def test_the_hook_is_told_of_and_can_be_left_out(plan: StackPlan) -> None:
    hooked = replace(plan, hook=True)
    parts = {part.name: part for part in build_parts(hooked, {**PORTS, "hook": 7}, {}, {})}
    assert (parts["hook"].needs, parts["hook"].address) == (("mlflow",), "http://127.0.0.1:7")
    assert parts["hook"].command[-4:] == ("release", "hook", "--port", "7")
    assert parts["mlflow"].env["MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS"] == "true"
    without = {part.name: part for part in build_parts(plan, PORTS, {}, {})}
    assert "hook" not in without
    assert "hook" not in plan.listening
    assert not [name for name in without["mlflow"].env if "WEBHOOK" in name]


def test_mlflow_keeps_its_key_for_webhooks_for_its_owner(plan: StackPlan) -> None:
    from cryptography.fernet import Fernet

    hooked = replace(plan, hook=True)
    name = "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"
    keys = {
        next(p for p in build_parts(hooked, {**PORTS, "hook": 7}, {}, {}) if p.name == "mlflow").env[name]
        for _ in range(2)
    }
    (key,) = keys
    Fernet(key.encode())
    assert (plan.home / "mlflow" / "webhook.key").stat().st_mode & 0o777 == 0o600
