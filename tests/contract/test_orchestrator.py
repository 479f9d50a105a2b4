"""The orchestrator's contract, on the fake and on a Prefect server of our own; and that registering works.

The real cases need no worker: the test plays its part over the same API. One case starts a real worker, in a
directory that knows nothing of the flows, because that is where path mistakes show.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx
import pytest

from deployments.register import NoDefinitions, NoServer, ServerUnreachable, register
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
    schedule_text,
)

T = TypeVar("T")
ROOMS = Path(__file__).parents[2]
FLOWS = ("ingest", "loop", "monitor", "release", "retrain", "rollout")
NAMES = [f"{flow}/{flow}" for flow in FLOWS]
SLOW = pytest.mark.timeout(300)
STUB = """
import os
from prefect import flow

@flow(name="{flow}", log_prints=True)
async def {flow}(service: str = "none") -> None:
    print("working on " + service)
    print(os.environ.get("EDGELOOP_HOME"), os.getcwd())
    if service == "broken":
        raise ValueError("no such luck")
"""


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


@dataclass
class Server:
    url: str
    rooms: Path
    env: dict[str, str]


class PrefectBench:
    def __init__(self, server: Server) -> None:
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
            return [event["payload"] for event in _post(self.server, "/events/filter", wanted)["events"]]

        return until(stored, "the event is stored")

    def away(self) -> Orchestrator:
        return self._away

    def close(self) -> None:
        self._real.close()
        self._away.close()

    def _state(self, run_id: str, state: str, message: str = "") -> None:
        body = {"state": {"type": state, "message": message}, "force": state not in ("PENDING", "RUNNING")}
        said = _post(self.server, f"/flow_runs/{run_id}/set_state", body)
        assert said["status"] == "ACCEPT", said

    def _log(self, run_id: str, lines: list[tuple[str, str]]) -> None:
        stamps = [f"2026-01-01T00:00:0{i}Z" for i in range(len(lines))]
        rows = [
            {"name": "t", "level": 20, "message": text, "timestamp": stamp, "flow_run_id": run_id}
            for stamp, (_, text) in zip(stamps, lines, strict=True)
        ]
        _post(self.server, "/logs/", rows)


def _post(server: Server, path: str, body: Any) -> Any:
    def once() -> httpx.Response | None:
        answer = httpx.post(server.url + path, json=body, timeout=30)
        return None if answer.status_code == 503 else answer

    answer = until(once, f"{path} is served")
    assert answer is not None
    answer.raise_for_status()
    return answer.json() if answer.content else None


def until(look: Callable[[], T], what: str, seconds: float = 60) -> T:
    """Look until something is seen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if seen := look():
            return seen
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment(home: Path, port: int) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "EDGELOOP_"))
    }
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}",
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prefect server on a free port, with the deployments of prefect.yaml over flows that do nothing."""
    rooms = make_rooms(tmp_path_factory.mktemp("rooms"))
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    env = _environment(home, port)
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with program([sys.executable, "-m", *command], env, home, home / "server.log"):
        made = Server(env["PREFECT_API_URL"], rooms, env)
        until(lambda: _healthy(made.url), f"Prefect answers, see {home}/server.log", 120)
        assert register(rooms, env) == NAMES
        # What the schedules start would disturb the cases.
        with closing(PrefectOrchestrator(made.url)) as orchestrator:
            orchestrator.set_schedules(False)
        yield made


class program:
    """A process that is there for a while and then ended by its own pid."""

    def __init__(self, command: list[str], env: Mapping[str, str], cwd: Path, log: Path) -> None:
        self._log = log.open("ab")
        self._process = subprocess.Popen(command, env=dict(env), cwd=cwd, stdout=self._log, stderr=self._log)

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *exc: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def make_rooms(folder: Path) -> Path:
    shutil.copy(ROOMS / "prefect.yaml", folder)
    (folder / "flows").mkdir()
    (folder / "flows" / "__init__.py").touch()
    for flow in FLOWS:
        (folder / "flows" / f"{flow}.py").write_text(STUB.format(flow=flow))
    return folder


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.TransportError:
        return False


@pytest.fixture(params=["fake", "prefect"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = FakeBench() if request.param == "fake" else PrefectBench(request.getfixturevalue("server"))
    with closing(made):
        yield made


@pytest.fixture
def orchestrator(server: Server) -> Iterator[PrefectOrchestrator]:
    with closing(PrefectOrchestrator(server.url)) as made:
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
def test_a_parameter_of_the_wrong_type_is_refused(orchestrator: PrefectOrchestrator) -> None:
    with pytest.raises(RefusedParameters, match="string"):
        orchestrator.run("loop/loop", {"service": 5})


@SLOW
def test_slots_that_no_run_holds_are_freed(server: Server, orchestrator: PrefectOrchestrator) -> None:
    ingest = httpx.get(f"{server.url}/deployments/name/ingest/ingest", timeout=30).json()
    limit = f"{server.url}/v2/concurrency_limits/{ingest['global_concurrency_limit']['id']}"
    until(lambda: httpx.patch(limit, json={"active_slots": 1}, timeout=30).is_success, "the slot is taken")
    orchestrator.cancel_stale()
    assert httpx.get(limit, timeout=30).json()["active_slots"] == 0


@SLOW
def test_registering_again_changes_nothing_and_drops_what_is_gone(server: Server, tmp_path: Path) -> None:
    def deployed() -> dict[str, Any]:
        found = _post(server, "/deployments/filter", {})
        keys = ("id", "pull_steps", "job_variables", "paused", "concurrency_options", "tags")
        return {entry["name"]: {key: entry[key] for key in keys} for entry in found}

    before = deployed()
    assert str(server.rooms) not in repr(before), "a path of this machine is recorded"
    assert before["release"]["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert before["loop"]["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    wider = make_rooms(tmp_path)
    text = (wider / "prefect.yaml").read_text()
    extra = text.partition("  - name: ingest\n")[2].partition("  - name: retrain\n")[0]
    (wider / "prefect.yaml").write_text(f"{text}\n  - name: nightly\n{extra}")
    assert "ingest/nightly" in register(wider, server.env)
    assert register(server.rooms, server.env) == NAMES
    assert deployed() == before
    assert len(_post(server, "/automations/filter", {})) == 1


@SLOW
def test_a_worker_elsewhere_runs_the_flow(
    server: Server, orchestrator: PrefectOrchestrator, tmp_path: Path
) -> None:
    orchestrator.cancel_stale()
    env = server.env | {"EDGELOOP_ROOMS": str(server.rooms), "EDGELOOP_HOME": "/a/home"}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "edgeloop", "--type", "process"]
    with program(command, env, tmp_path, tmp_path / "worker.log"):
        run_id = orchestrator.run("release/release", {"service": "wine"})
        ended = orchestrator.wait(run_id, 120)
        assert ended.succeeded, (tmp_path / "worker.log").read_text()
        lines = until(lambda: _after("working on wine", orchestrator.logs(run_id)), "the run's lines arrive")
    assert lines[0] == f"/a/home {server.rooms}"


def _after(line: str, lines: list[str]) -> list[str]:
    return lines[lines.index(line) + 1 :] if line in lines else []


def test_registering_needs_a_server_and_definitions(tmp_path: Path) -> None:
    with pytest.raises(NoServer, match="edgeloop up"):
        register(ROOMS, {})
    with pytest.raises(NoDefinitions, match="EDGELOOP_ROOMS"):
        register(tmp_path, {"PREFECT_API_URL": "http://127.0.0.1:1/api"})
    with pytest.raises(ServerUnreachable, match="is the server running"):
        register(ROOMS, {"PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"})


@pytest.mark.parametrize(
    ("schedules", "text"),
    [
        ([], "by hand"),
        ([{"active": False, "schedule": {"interval": 60.0}}], "by hand"),
        ([{"active": True, "schedule": {"interval": 30.0}}], "every 30 s"),
        ([{"active": True, "schedule": {"interval": 90.0}}], "every 90 s"),
        ([{"active": True, "schedule": {"interval": 300.0}}], "every 5 min"),
        ([{"active": True, "schedule": {"cron": "0 3 * * *", "timezone": None}}], "cron 0 3 * * * UTC"),
        (
            [
                {"active": True, "schedule": {"interval": 86400.0}},
                {"active": True, "schedule": {"rrule": "R"}},
            ],
            "every 1 d, R",
        ),
    ],
)
def test_schedules_in_words(schedules: list[dict[str, Any]], text: str) -> None:
    assert schedule_text(schedules) == text


def test_the_client_imports_neither_prefect_nor_httpx() -> None:
    code = (
        "import sys, edgeloop.clients.orchestrator; sys.exit(bool({'prefect', 'httpx'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
