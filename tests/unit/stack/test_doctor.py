"""Every finding names what is wrong and what to do about it."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from edgeloop.samples.topics import report_topic
from edgeloop.settings import HOME_VERSION, Settings, make_home
from edgeloop.stack import doctor
from edgeloop.stack.doctor import (
    check_broker,
    check_disk,
    check_fastapi,
    check_home_version,
    check_packages,
    check_ports,
    check_python,
    check_reports,
    check_rooms,
    check_server,
    check_store,
    diagnose,
)
from edgeloop.stack.status import stack_status
from tests.servers.mosquitto import Mosquitto


def none_installed(_package: str) -> str | None:
    return None


def test_a_finding_that_is_not_well_has_a_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_mosquitto", lambda: None)
    checks = diagnose(Settings(home=tmp_path / "home", rooms=tmp_path), none_installed)
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    bad = [check for check in checks if not check.ok]
    assert {
        "packages: node",
        "packages: cloud",
        "packages: train",
        "packages: web",
        "rooms",
        "broker",
    } <= {check.name for check in bad}
    assert all(check.fix and check.detail and "\n" not in check.detail for check in bad)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("version", "ok"),
    [((3, 10), False), ((3, 11), True), ((3, 13), True), ((3, 14), False)],
)
def test_python(version: tuple[int, int], ok: bool) -> None:
    assert check_python(version).ok is ok


def test_packages() -> None:
    have: Mapping[str, str] = {"tensorflow": "2.21", "keras": "3.15"}
    check = check_packages("train", (("tensorflow-cpu", "tensorflow"), "keras"), have.get)
    assert (check.ok, check.detail) == (True, "tensorflow 2.21, keras 3.15")
    check = check_packages("train", (("tensorflow-cpu", "tensorflow"), "skl2onnx"), have.get)
    assert (check.ok, check.detail) == (False, "missing: skl2onnx")
    assert "edgeloop[train]" in check.fix


@pytest.mark.parametrize(
    ("version", "ok"),
    [("0.150.3", True), ("0.151.0", False), (None, True), ("1.0", True)],
)
def test_fastapi(version: str | None, ok: bool) -> None:
    assert check_fastapi(version).ok is ok


def test_home(tmp_path: Path) -> None:
    assert check_home_version(tmp_path / "new").ok
    make_home(tmp_path)
    assert check_home_version(tmp_path).ok
    (tmp_path / "home.json").write_text(json.dumps({"version": HOME_VERSION + 1}))
    assert not check_home_version(tmp_path).ok


def test_disk(tmp_path: Path) -> None:
    assert check_disk(tmp_path / "not" / "yet", least=1).ok
    low = check_disk(tmp_path, least=10**18)
    assert (low.ok, low.warning) == (False, True)
    assert "free" in low.fix


def test_rooms(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    assert check_rooms(tmp_path).detail.endswith("has no tasks, deployments/register.py")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "deployments").mkdir()
    (tmp_path / "deployments" / "register.py").touch()
    assert check_rooms(tmp_path).ok


def test_ports(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (tmp_path / "ports.json").write_text(json.dumps({"mlflow": port}))
        check = check_ports(tmp_path, running=False)
        assert not check.ok
        assert f"mlflow {port}" in check.detail
        assert check_ports(tmp_path, running=True).ok


def test_store(tmp_path: Path) -> None:
    assert check_store(Settings(home=tmp_path / "new")).ok
    assert check_store(Settings(home=tmp_path, store=str(tmp_path / "store"))).ok
    (tmp_path / "file").touch()
    assert not check_store(Settings(home=tmp_path, store=str(tmp_path / "file"))).ok


def test_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path)
    monkeypatch.setattr(doctor, "find_mosquitto", lambda: None)
    worse = check_broker(settings, False, {"amqtt": "0.12"}.get)
    assert (worse.ok, worse.warning) == (False, True)
    none = check_broker(settings, False, none_installed)
    assert (none.ok, none.warning) == (False, False)
    monkeypatch.setattr(doctor, "find_mosquitto", lambda: "/usr/sbin/mosquitto")
    assert check_broker(settings, False, none_installed).ok


@pytest.mark.parametrize(("queue", "ok"), [(10, False), (0, True)])
def test_a_broker_that_drops_reports(tmp_path: Path, queue: int, ok: bool) -> None:
    from edgeloop.clients.broker import connect

    with Mosquitto(tmp_path / "mosquitto", options=[f"max_queued_messages {queue}"]) as server:
        node = connect(server.url, "node", receive_maximum=1000)
        kept = [node.publish_nowait(report_topic(f"n{n}", "rater"), b"{}", retain=True) for n in range(2100)]
        for one in kept:
            one.result(20)
        node.close()
        (check,) = check_reports(Settings(home=tmp_path, broker=server.url), False)
    assert check.ok is ok
    assert ("max_queued_messages" in check.fix) is not ok
    assert ok is (check.detail == "2100 words of nodes, read to the end")
    assert check_reports(Settings(home=tmp_path, broker=server.url), False) == []  # it does not answer now
    assert check_reports(Settings(home=tmp_path), False) == []


def test_a_broker_that_was_named_must_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    check = check_broker(
        Settings(home=tmp_path, broker=f"mqtt://u:secret@127.0.0.1:{port}"),
        False,
        none_installed,
    )
    assert not check.ok
    assert "secret" not in check.detail


def test_a_server_that_was_named_must_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    assert not check_server("registry", address, "/health", "http://127.0.0.1:5000", running=False).ok
    assert not check_server("registry", address, "/health", address, running=True).ok
    assert check_server("registry", address, "/health", address, running=False).ok


def test_status_of_no_stack(tmp_path: Path) -> None:
    status = stack_status(Settings(home=tmp_path))
    assert (status["running"], status["parts"]) == (False, [])
    assert json.loads(json.dumps(status)) == status


def test_status_of_a_killed_stack(tmp_path: Path) -> None:
    gone = {"pid": 2**22 + 1, "pgid": 1, "started": "x"}
    addresses = {
        "prefect": "http://127.0.0.1:9/api",
        "prefect_ui": "http://127.0.0.1:9",
        "store": "/s",
        "edge-1": "http://x",
    }
    value = {
        "version": 1,
        "supervisor": gone,
        "life": "",
        "addresses": addresses,
        "parts": {"prefect": gone},
    }
    (tmp_path / "stack.json").write_text(json.dumps(value))
    status = stack_status(Settings(home=tmp_path))
    assert status["running"] is False
    rows = {row["name"]: row for row in status["parts"]}
    assert set(rows) == {"prefect", "edge-1"}
    assert rows["prefect"]["address"] == "http://127.0.0.1:9"
    assert not any(row["alive"] or row["healthy"] for row in rows.values())
    assert rows["edge-1"]["pid"] is None
