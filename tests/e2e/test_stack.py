"""The real servers, a worker and a node: up on free ports, back when killed, remembering everything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeloop.clients import broker
from edgeloop.stack.doctor import diagnose
from edgeloop.stack.environment import child_environment
from edgeloop.stack.parts import broker_part
from edgeloop.stack.plan import StackPlan, build_addresses
from edgeloop.stack.ports import choose_ports
from edgeloop.stack.record import read_record
from edgeloop.stack.running import RunningStack, running_stack
from edgeloop.stack.status import stack_status
from edgeloop.stack.supervisor import Supervisor

pytestmark = pytest.mark.e2e


def until(wanted: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < end
        time.sleep(0.1)


def call(url: str, body: object = None, method: str | None = None) -> Any:
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=10) as reply:
        content = reply.read()
    return json.loads(content) if content[:1] in (b"{", b"[") else content


@pytest.fixture
def plan(tmp_path: Path) -> StackPlan:
    # Rooms without flows: what is registered is not this test's matter, and costs seconds.
    rooms = tmp_path / "rooms"
    (rooms / "deployments").mkdir(parents=True)
    (rooms / "deployments" / "__init__.py").touch()
    (rooms / "deployments" / "register.py").write_text("print('nothing to register')\n")
    runner = Path(__file__).resolve().parents[2] / "deployments" / "runner.py"
    (rooms / "deployments" / "runner.py").write_text(runner.read_text())
    return StackPlan(home=tmp_path / "home", rooms=rooms, services=["wine-rater"], nodes=1, free_ports=True)


@contextmanager
def up(plan: StackPlan) -> Iterator[RunningStack]:
    with running_stack(plan) as stack:
        assert stack.check() == {}
        yield stack


def remember(stack: RunningStack) -> None:
    """Leave something in each server."""
    call(f"{stack.addresses['prefect']}/variables/", {"name": "kept", "value": "yes"})
    api = f"{stack.addresses['mlflow']}/api/2.0/mlflow"
    experiment = call(f"{api}/experiments/create", {"name": "kept"})["experiment_id"]
    assert call(f"{api}/experiments/get?experiment_id={experiment}")["experiment"]["artifact_location"].startswith(
        "mlflow-artifacts:/"
    )
    call(f"{api}/registered-models/create", {"name": "wine-rater"})
    call(f"{stack.addresses['mlflow']}/api/2.0/mlflow-artifacts/artifacts/kept/model.bin", b"weights", "PUT")
    link = broker.connect(stack.addresses["broker"], "test")
    link.publish("edgeloop/v1/kept", b"yes", retain=True)
    link.close()


def assert_remembered(stack: RunningStack) -> None:
    """What :func:`remember` left is there."""
    assert call(f"{stack.addresses['prefect']}/variables/name/kept")["value"] == "yes"
    api = f"{stack.addresses['mlflow']}/api/2.0"
    model = call(f"{api}/mlflow/registered-models/get?name=wine-rater")["registered_model"]
    assert model["name"] == "wine-rater"
    assert call(f"{api}/mlflow-artifacts/artifacts/kept/model.bin") == b"weights"
    link = broker.connect(stack.addresses["broker"], "test")
    assert [message.payload for message in link.collect_retained("edgeloop/v1/kept", quiet=2)] == [b"yes"]
    link.close()


# Run in a process of its own, so that it can be killed.
PROGRAM = """
import sys
from pathlib import Path
from edgeloop.stack.plan import StackPlan
from edgeloop.stack.running import run_foreground
home, rooms = map(Path, sys.argv[1:])
plan = StackPlan(home, rooms, ["wine-rater"], nodes=1)
run_foreground(plan, ready=lambda stack: (home / "up").touch())
"""


def kill_everything(plan: StackPlan) -> None:
    """Start the stack and end every process of it with SIGKILL, the supervisor too."""
    command = [sys.executable, "-c", PROGRAM, str(plan.home), str(plan.rooms)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as child:
        until(lambda: (plan.home / "up").exists() or child.poll() is not None, 240)
        # Stopped first, so that it neither starts parts again nor lets the kernel end them gently.
        child.send_signal(signal.SIGSTOP)
        record = read_record(plan.home)
        assert record is not None
        for process in record.parts.values():
            os.kill(process.pid, signal.SIGKILL)
        child.kill()


def test_the_stack_comes_up_comes_back_and_keeps_its_state(plan: StackPlan) -> None:
    with up(plan) as stack:
        assert set(stack.pids()) == {"prefect", "mlflow", "broker", "runner", "edge-1"}
        assert b"<html" in call(stack.addresses["prefect_ui"]).lower()
        status = stack_status(stack.settings())
        assert status["running"] is True
        assert [row["name"] for row in status["parts"] if not row["healthy"]] == []
        assert [check for check in diagnose(stack.settings()) if not check.ok and check.name != "rooms"] == []
        remember(stack)
        before = stack.pids()
        for part in ("mlflow", "edge-1"):
            os.kill(before[part], signal.SIGKILL)
        until(lambda: stack.pids().get("mlflow", before["mlflow"]) != before["mlflow"], 60)
        until(lambda: stack.check() == {}, 180)
        after = stack.pids()
        assert {part for part in after if after[part] != before[part]} == {"mlflow", "edge-1"}
        assert_remembered(stack)
        addresses = stack.addresses
    assert not (plan.home / "stack.json").exists()
    kill_everything(plan)
    with up(plan) as stack:
        assert stack.addresses == addresses
        assert_remembered(stack)


def test_without_mosquitto_amqtt_is_the_broker(plan: StackPlan, tmp_path: Path) -> None:
    tmp_path.joinpath("home").mkdir()
    with choose_ports(plan.listening, plan.home, free=True) as ports:
        addresses = build_addresses(plan, ports.numbers)
        env = child_environment(plan, addresses, os.environ)
        part = broker_part(plan, ports.numbers["broker"], addresses, env, mosquitto=None)
    supervisor = Supervisor([part], tmp_path)
    supervisor.start()
    supervisor.wait_ready()
    link = broker.connect(addresses["broker"], "test")
    link.publish("edgeloop/v1/kept", b"yes", retain=True)
    assert [message.payload for message in link.collect_retained("edgeloop/v1/kept", quiet=2)] == [b"yes"]
    link.close()
    supervisor.stop()
    assert supervisor.join(20)
