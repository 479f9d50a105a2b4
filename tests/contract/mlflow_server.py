"""The MLflow server that a local stack starts, on a port of its own."""

from __future__ import annotations

import os
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeloop.stack.parts import mlflow_part
from edgeloop.stack.plan import StackPlan
from tests.servers.ports import free_port, wait_until


@contextmanager
def running_mlflow(home: Path, port: int) -> Iterator[str]:
    """A server on ``home`` for as long as the block lasts, allowed to call this machine."""
    url = f"http://127.0.0.1:{port}"
    plan = StackPlan(home=home, rooms=home, services=[], hook=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "EDGELOOP_"))}
    # Webhooks are listed anew for every event, and not kept for a minute: tests make and change them.
    env |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "MLFLOW_WEBHOOK_CACHE_TTL": "0"}
    part = mlflow_part(plan, port, {"mlflow": url}, env)
    with (home / "log").open("ab") as log:
        server = subprocess.Popen(part.command, env=dict(part.env), cwd=part.cwd, stdout=log, stderr=log)
    try:
        wait_until("MLflow", lambda: server.poll() is not None or part.health() is None, seconds=120)
        assert server.poll() is None, (home / "log").read_text(encoding="utf-8")[-2000:]
        yield url
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that all tests of a run share."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        import mlflow.sklearn
    with running_mlflow(tmp_path_factory.mktemp("mlflow"), free_port()) as url:
        try:
            yield url
        finally:
            mlflow.set_tracking_uri(None)
            mlflow.set_registry_uri(None)
