"""The same rollout as one Prefect task for each node: runs it in a process of its own, with a server of its own.

The library does not know Prefect: the flow is in the rooms, in ``tasks/_per_node.py``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from edgeloop.bench.edge_site import BenchFailed
from edgeloop.bench.rollout.result import PerNodeRun
from edgeloop.bench.rollout.site import Site

_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}


def run_per_node(site: Site, rooms: Path, seconds: float = 900.0) -> PerNodeRun:
    """Measure it on ``site``, whose nodes run the old release.

    Raises:
        BenchFailed: the flow failed, or there is none in ``rooms``.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env = {**kept, **_SETTINGS, "PREFECT_HOME": str(site.folder / "prefect")}
    command = [sys.executable, "-m", "tasks._per_node", str((site.folder / "site.json").absolute())]
    with (site.folder / "per-node.log").open("wb") as log:
        started = subprocess.Popen(
            command, cwd=rooms, env=env, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
        try:
            out, _ = started.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise BenchFailed(f"one task per node did not end in {seconds:g} s: measure with fewer nodes") from error
        finally:
            _end(started)
    if started.returncode:
        said = (site.folder / "per-node.log").read_text(encoding="utf-8", errors="replace").strip()
        raise BenchFailed(f"one task per node failed: {' '.join(said.split())[-300:]}")
    return PerNodeRun.model_validate_json(out)


def _end(started: subprocess.Popen[bytes]) -> None:
    """The flow and its server, which is of the same group; nothing when both have ended."""
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()
