"""The rollout's bench runs as a user runs it, with processes, broker, channel and Prefect as they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.mosquitto import find_mosquitto

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(400)
def test_a_rollout_to_simulated_nodes_is_measured(tmp_path: Path) -> None:
    find_mosquitto()
    command = [sys.executable, "-m", "edgeloop.cli", "--home", str(tmp_path), "bench", "rollout", "--json"]
    command += ["--nodes", "300", "--tasks", "60", "--faulty", "8", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    run = found["rollout"]
    assert run["state"] == "done", run["reason"]
    away, refused = found["offline"], run["failed"]
    assert 0 < refused < 300 * 0.05
    assert run["switched"] == 300 - round(away * 300) - refused
    assert run["peak_mb"] < 500
    calls = {(one["nodes"], one["rings"]): one["calls"] for one in found["sizes"]}
    assert set(calls) == {(nodes, rings) for nodes in (100, 300) for rings in (3, 6)}
    for rings in (3, 6):
        assert calls[100, rings]["sql commit"] <= calls[300, rings]["sql commit"] + rings
        assert calls[300, rings]["broker publish"] == rings
    assert found["per_node"]["nodes_by_outcome"]["serving"] > 50
    assert found["per_node"]["seconds"] >= found["per_node"]["answered_seconds"] > 0
    assert sum(kind["runs"] for kind in found["faulty"]) == 8
    assert sum(kind["nodes_beyond"] for kind in found["faulty"]) == 0
    assert not list((tmp_path / "bench" / "rollout").iterdir())
