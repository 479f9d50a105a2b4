"""The orchestrator's contract, on the fake and on a Prefect server of our own.

The server needs no worker here: the test plays its part over the same API.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Protocol

import pytest

from edgeloop.clients.orchestrator import (
    FakeOrchestrator,
    Orchestrator,
    OrchestratorUnavailable,
    PrefectOrchestrator,
    RefusedParameters,
    RunState,
    RunUnfinished,
    UnknownDeployment,
    UnknownRun,
)
from tests.contract.prefect_server import FLOWS, NAMES, PrefectServer, post, until
from tests.servers.ports import free_port

SLOW = pytest.mark.timeout(300)


class Bench(Protocol):
    """An orchestrator, and the worker's part of it."""

    orchestrator: Orchestrator

    def work(self, run_id: str, service: str) -> None:
        """Have the run done, at the latest when it is waited for."""

    def start(self, run_id: str) -> None:
        """Have the run begun by a worker that then dies."""

    def events(self, name: str) -> list[dict[str, Any]]:
        """Payloads of the events of this name."""

    def away(self) -> Orchestrator:
        """The same kind of orchestrator, with nobody behind it."""

    def close(self) -> None:
        """Let go of the connections."""


def _body(service: str = "none") -> list[str]:
    if service == "broken":
        raise ValueError("no such luck")
    return [f"working on {service}", "done"]


class FakeBench:
    def __init__(self) -> None:
        self.fake = FakeOrchestrator(dict.fromkeys(NAMES, _body))
        self.orchestrator: Orchestrator = self.fake

    def work(self, run_id: str, service: str) -> None:
        """Nothing: the fake runs the body when it is waited for."""

    def start(self, run_id: str) -> None:
        self.fake.start(run_id)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [payload for event, _, payload in self.fake.events if event == name]

    def away(self) -> Orchestrator:
        gone = FakeOrchestrator({})
        gone.healthy = False
        return gone

    def close(self) -> None:
        """Nothing to let go of."""


class PrefectBench:
    def __init__(self, server: PrefectServer) -> None:
        self.server = server
        self._real = PrefectOrchestrator(server.url)
        self._away = PrefectOrchestrator(f"http://127.0.0.1:{free_port()}/api")
        self.orchestrator: Orchestrator = self._real

    def work(self, run_id: str, service: str) -> None:
        self._state(run_id, "RUNNING")
        lines = [("INFO", f"working on {service}"), ("INFO", "done")]
        self._log(run_id, lines if service != "broken" else [])
        self._state(run_id, "FAILED" if service == "broken" else "COMPLETED", "no such luck")

    def start(self, run_id: str) -> None:
        self._state(run_id, "PENDING")
        self._state(run_id, "RUNNING")

    def events(self, name: str) -> list[dict[str, Any]]:
        def stored() -> list[dict[str, Any]]:
            wanted = {"filter": {"event": {"name": [name]}}, "limit": 50}
            return [event["payload"] for event in post(self.server, "/events/filter", wanted)["events"]]

        return until(stored, "the event is stored")

    def away(self) -> Orchestrator:
        return self._away

    def close(self) -> None:
        self._real.close()
        self._away.close()

    def _state(self, run_id: str, state: str, message: str = "") -> None:
        body = {"state": {"type": state, "message": message}, "force": state not in ("PENDING", "RUNNING")}
        said = post(self.server, f"/flow_runs/{run_id}/set_state", body)
        assert said["status"] == "ACCEPT", said

    def _log(self, run_id: str, lines: list[tuple[str, str]]) -> None:
        stamps = [f"2026-01-01T00:00:0{i}Z" for i in range(len(lines))]
        rows = [
            {"name": "t", "level": 20, "message": text, "timestamp": stamp, "flow_run_id": run_id}
            for stamp, (_, text) in zip(stamps, lines, strict=True)
        ]
        post(self.server, "/logs/", rows)


@pytest.fixture(params=["fake", "prefect"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = FakeBench() if request.param == "fake" else PrefectBench(request.getfixturevalue("prefect_server"))
    with closing(made):
        yield made


@SLOW
def test_check_passes_and_names_the_absent(bench: Bench) -> None:
    bench.orchestrator.check()
    with pytest.raises(OrchestratorUnavailable, match="is the stack up"):
        bench.away().check()
    with pytest.raises(OrchestratorUnavailable):
        bench.away().run("loop/loop", {})


@SLOW
def test_deployments_are_listed_by_name(bench: Bench) -> None:
    listed = bench.orchestrator.deployments()
    assert [info.name for info in listed] == NAMES
    assert [info.flow for info in listed] == list(FLOWS)
    assert all(info.schedule and info.url for info in listed)


@SLOW
def test_schedules_pause_and_resume(bench: Bench) -> None:
    bench.orchestrator.set_schedules(True)
    assert not any(info.paused for info in bench.orchestrator.deployments())
    bench.orchestrator.set_schedules(False)
    assert all(info.paused for info in bench.orchestrator.deployments())


@SLOW
def test_a_run_is_named_watched_and_ends_well(bench: Bench) -> None:
    seen: list[RunState] = []
    run_id = bench.orchestrator.run("loop/loop", {"service": "wine"}, name="wine by hand")
    bench.work(run_id, "wine")
    ended = bench.orchestrator.wait(run_id, 30, seen.append)
    assert (ended.name, ended.state, ended.final, ended.succeeded) == (
        "wine by hand",
        "Completed",
        True,
        True,
    )
    assert seen[-1] == ended
    assert bench.orchestrator.logs(run_id) == ["working on wine", "done"]
    assert {i.name: i.last_state for i in bench.orchestrator.deployments()}["loop/loop"] == "Completed"


@SLOW
def test_a_failed_run_says_why(bench: Bench) -> None:
    run_id = bench.orchestrator.run("retrain/retrain", {"service": "broken"})
    bench.work(run_id, "broken")
    ended = bench.orchestrator.wait(run_id, 30)
    assert (ended.state, ended.final, ended.succeeded) == ("Failed", True, False)
    assert "no such luck" in ended.message
    assert bench.orchestrator.logs(run_id) == []


@SLOW
def test_waiting_ends_with_the_time_given(bench: Bench) -> None:
    run_id = bench.orchestrator.run("loop/loop", {}, name="never")
    with pytest.raises(RunUnfinished, match="never is"):
        bench.orchestrator.wait(run_id, 0)


@SLOW
def test_the_same_key_is_the_same_run(bench: Bench) -> None:
    def ask(deployment: str, key: str | None) -> str:
        return bench.orchestrator.run(deployment, {}, idempotency_key=key)

    key = uuid.uuid4().hex
    first = ask("loop/loop", key)
    assert ask("loop/loop", key) == first
    others = {ask("loop/loop", None), ask("loop/loop", None), ask("loop/loop", f"{key}2")}
    assert len(others | {first}) == 4


@SLOW
def test_mistakes_are_told_apart(bench: Bench) -> None:
    with pytest.raises(UnknownDeployment, match="loop/lop"):
        bench.orchestrator.run("loop/lop", {})
    with pytest.raises(RefusedParameters, match="nonsense"):
        bench.orchestrator.run("loop/loop", {"nonsense": 1})
    with pytest.raises(UnknownRun, match="no run"):
        bench.orchestrator.wait(str(uuid.uuid4()), 5)


@SLOW
def test_events_arrive(bench: Bench) -> None:
    name = f"edgeloop.test.{uuid.uuid4().hex}"
    bench.orchestrator.emit(name, "edgeloop.service.wine", {"digest": "abc", "n": 3})
    assert bench.events(name) == [{"digest": "abc", "n": 3}]


@SLOW
def test_what_a_dead_worker_left_is_cleared(bench: Bench) -> None:
    bench.orchestrator.cancel_stale()
    lost = bench.orchestrator.run("monitor/monitor", {})
    bench.start(lost)
    assert bench.orchestrator.cancel_stale() == 1
    assert bench.orchestrator.wait(lost, 5).state == "Crashed"
    # The limit of this deployment is one: the next can only start because the slot is free again.
    bench.start(bench.orchestrator.run("monitor/monitor", {}))
    assert bench.orchestrator.cancel_stale() == 1
    assert bench.orchestrator.cancel_stale() == 0


@SLOW
def test_a_run_that_has_begun_nothing_has_no_tasks(bench: Bench) -> None:
    run_id = bench.orchestrator.run("loop/loop", {})
    assert bench.orchestrator.tasks(run_id) == []
    bench.work(run_id, "wine")
    assert bench.orchestrator.wait(run_id, 30).succeeded
    assert bench.orchestrator.tasks(run_id) == []
    assert bench.orchestrator.tasks(str(uuid.uuid4())) == []
