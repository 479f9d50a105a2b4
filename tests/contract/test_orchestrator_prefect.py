"""What only a real server shows: what it refuses, its slots, a worker elsewhere, registering, and connections.

One worker is started in a directory that knows nothing of the flows, because that is where path mistakes show.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.register import NoDefinitions, NoServer, ServerUnreachable, register
from edgeloop.clients.orchestrator import PrefectOrchestrator, RefusedParameters, schedule_text
from tests.contract.prefect_server import NAMES, ROOMS, PrefectServer, make_rooms, post, program, until
from tests.servers.ports import free_port

SLOW = pytest.mark.timeout(300)


@pytest.fixture
def orchestrator(prefect_server: PrefectServer) -> Iterator[PrefectOrchestrator]:
    with closing(PrefectOrchestrator(prefect_server.url)) as made:
        yield made


@SLOW
def test_a_parameter_of_the_wrong_type_is_refused(orchestrator: PrefectOrchestrator) -> None:
    with pytest.raises(RefusedParameters, match="string"):
        orchestrator.run("loop/loop", {"service": 5})


@SLOW
def test_slots_that_no_run_holds_are_freed(prefect_server: PrefectServer, orchestrator: PrefectOrchestrator) -> None:
    ingest = httpx.get(f"{prefect_server.url}/deployments/name/ingest/ingest", timeout=30).json()
    limit = f"{prefect_server.url}/v2/concurrency_limits/{ingest['global_concurrency_limit']['id']}"
    until(lambda: httpx.patch(limit, json={"active_slots": 1}, timeout=30).is_success, "the slot is taken")
    orchestrator.cancel_stale()
    assert httpx.get(limit, timeout=30).json()["active_slots"] == 0


@SLOW
def test_registering_again_changes_nothing_and_drops_what_is_gone(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    def deployed() -> dict[str, Any]:
        found = post(prefect_server, "/deployments/filter", {})
        keys = ("id", "pull_steps", "job_variables", "paused", "concurrency_options", "tags")
        return {entry["name"]: {key: entry[key] for key in keys} for entry in found}

    before = deployed()
    assert str(prefect_server.rooms) not in repr(before), "a path of this machine is recorded"
    assert before["release"]["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert before["loop"]["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    wider = make_rooms(tmp_path)
    text = (wider / "prefect.yaml").read_text()
    extra = text.partition("  - name: ingest\n")[2].partition("  - name: retrain\n")[0]
    (wider / "prefect.yaml").write_text(f"{text}\n  - name: nightly\n{extra}")
    assert "ingest/nightly" in register(wider, prefect_server.env)
    assert register(prefect_server.rooms, prefect_server.env) == NAMES
    assert deployed() == before
    assert len(post(prefect_server, "/automations/filter", {})) == 1


@pytest.fixture(scope="module")
def worked(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Id of a run that a worker elsewhere has done."""
    away = tmp_path_factory.mktemp("away")
    env = prefect_server.env | {"EDGELOOP_ROOMS": str(prefect_server.rooms), "EDGELOOP_HOME": "/a/home"}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "edgeloop", "--type", "process"]
    with (
        closing(PrefectOrchestrator(prefect_server.url)) as orchestrator,
        program(command, env, away, away / "worker.log"),
    ):
        orchestrator.cancel_stale()
        run_id = orchestrator.run("release/release", {"service": "wine-rater"})
        ended = orchestrator.wait(run_id, 120)
        assert ended.succeeded, (away / "worker.log").read_text()
        # Lines and task runs reach the server some time after the run has ended.
        until(lambda: len(orchestrator.tasks(run_id)) == 2, "the run's tasks arrive")
        until(lambda: _after("working on wine-rater", orchestrator.logs(run_id)), "the run's lines arrive")
    return run_id


@SLOW
def test_a_worker_elsewhere_runs_the_flow(
    worked: str, prefect_server: PrefectServer, orchestrator: PrefectOrchestrator
) -> None:
    lines = _after("working on wine-rater", orchestrator.logs(worked))
    assert lines[0] == f"/a/home {prefect_server.rooms}"


@SLOW
def test_tasks_have_their_own_names_in_the_order_in_which_they_began(
    worked: str, orchestrator: PrefectOrchestrator
) -> None:
    tasks = orchestrator.tasks(worked)
    assert [task.name for task in tasks] == ["train", "evaluate"]
    assert {task.state for task in tasks} == {"Completed"}
    assert all(0 <= task.seconds < 60 for task in tasks)


def _after(line: str, lines: list[str]) -> list[str]:
    return lines[lines.index(line) + 1 :] if line in lines else []


LEFT_OPEN = """
import sys
from edgeloop.clients.orchestrator import PrefectOrchestrator
forgotten, kept = (PrefectOrchestrator(sys.argv[1]) for _ in range(2))
forgotten.check()
kept.check()
del forgotten
"""


@SLOW
def test_connections_that_nobody_closes_are_no_leak(prefect_server: PrefectServer) -> None:
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", LEFT_OPEN, prefect_server.url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""


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
    code = "import sys, edgeloop.clients.orchestrator; sys.exit(bool({'prefect', 'httpx'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
