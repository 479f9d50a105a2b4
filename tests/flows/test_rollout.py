"""The flow `rollout` over clusters: a task for each ring and site that moves, done at once, and none for a node."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import tasks.deploy
from edgeloop.fleet.rollouts.effects import Action, in_turn
from edgeloop.fleet.targets.protocol import Outcome
from tests.conftest import ROOT
from tests.flows.rolled import app_of
from tests.unit.fleet.rollouts.test_kserve_rollout import Sites
from tests.unit.fleet.rollouts.world import NEW


def test_every_ring_and_site_that_moves_is_a_task(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.flows.rolled", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["at rest"] == [], "what stands is no news"
    assert (found["state"], found["runs"]) == ("done", ["new"] * 3)
    sites = [(0, "lab"), (1, "north"), (1, "south")]
    wanted = [f"rater ring {ring} on kserve at {site}" for ring, site in sites]
    assert [name for name in found["tasks"] if not name.endswith(": check")] == wanted
    assert found["at once"] == ["done"] * 3
    assert "Unable to create hash" not in done.stdout + done.stderr


def test_looks_at_clusters_are_seconds_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, seen = Sites(tmp_path), []

    def perform(actions: Sequence[Action]) -> list[Outcome]:
        return in_turn(actions)

    def sleep(seconds: float) -> None:
        seen.append(seconds)
        world._control()

    monkeypatch.setattr(tasks.deploy, "open_app", lambda: app_of(world))
    monkeypatch.setattr(tasks.deploy, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(tasks.deploy, "fan_out", perform)
    monkeypatch.setattr("edgeloop.fleet.rollouts.status.time.sleep", sleep)
    assert world.start(NEW)
    assert tasks.deploy.finish_rollout.fn("rater", 60.0).state == "done"
    assert set(seen) == {tasks.deploy.CLUSTER_PAUSE}
    assert world.runs() == ["new"] * 3
    world.close()
