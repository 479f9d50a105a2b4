"""A Prefect server for tests, with the deployments of prefect.yaml over flows that do next to nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from deployments.register import register
from edgeloop.clients.orchestrator import PrefectOrchestrator
from tests.servers.ports import free_port

T = TypeVar("T")
ROOMS = Path(__file__).parents[2]
FLOWS = ("ingest", "loop", "monitor", "release", "retrain", "rollout")
NAMES = [f"{flow}/{flow}" for flow in FLOWS]
STUB = """
import os
from prefect import flow, task

@task(name="train", task_run_name="train-{{service}}")
def train_candidate(service: str) -> None:
    pass

@task(name="evaluate")
def evaluate_candidate() -> None:
    pass

@flow(name="{flow}", log_prints=True)
async def {flow}(service: str = "none") -> None:
    print("working on " + service)
    print(os.environ.get("EDGELOOP_HOME"), os.getcwd())
    train_candidate(service)
    evaluate_candidate()
    if service == "broken":
        raise ValueError("no such luck")
"""


@dataclass
class PrefectServer:
    url: str
    rooms: Path
    env: dict[str, str]


def post(server: PrefectServer, path: str, body: Any) -> Any:
    def once() -> httpx.Response | None:
        try:
            answer = httpx.post(server.url + path, json=body, timeout=30)
        except httpx.ReadTimeout:  # SQLite was locked
            return None
        return None if answer.status_code == 503 else answer

    answer = until(once, f"{path} is served")
    assert answer is not None
    answer.raise_for_status()
    return answer.json() if answer.content else None


def until(look: Callable[[], T], what: str, seconds: float = 180) -> T:
    """Look until something is seen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if seen := look():
            return seen
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def environment(home: Path, port: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "EDGELOOP_"))}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}",
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A Prefect server on a free port, with the deployments of prefect.yaml over flows that do next to nothing."""
    rooms = make_rooms(tmp_path_factory.mktemp("rooms"))
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    env = environment(home, port)
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with program([sys.executable, "-m", *command], env, home, home / "server.log"):
        made = PrefectServer(env["PREFECT_API_URL"], rooms, env)
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
