"""Runs the real monitor against a temporary Prefect, in a process of its own: Prefect leaves sockets to the exit.

``python -m tests.flows.monitored FOLDER`` prints what came of it as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from prefect.artifacts import Artifact
from prefect.testing.utilities import prefect_test_harness

import flows.monitor
import tasks.watch
from edgeloop.errors import EdgeloopError
from tests.unit.learning.drift.world import World
from tests.unit.samples.make import regressor


class Fleet:
    """The app of a service that has a champion and has drifted, and maybe of one that cannot be read."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.store, self.registry, self.fleet = world.store, world.registry, world.fleet
        self.orchestrator = world.orchestrator
        self.names = ["rater"]

    def services(self) -> list[str]:
        return self.names

    def service(self, name: str) -> Any:
        if name != "rater":
            raise EdgeloopError(f"no service {name}: add it")
        return self.world.service

    def tables(self, _name: str) -> Any:
        return self.world.tables


def make(folder: Path) -> Fleet:
    world = World(folder, regressor(target={"name": "y"}))
    rng = np.random.default_rng(0)
    world.deliver(rng.normal(2, 1, (80, 2)), "reference")
    world.promote()
    world.deliver(rng.normal(9, 1, (60, 2)), prediction="1.0")
    return Fleet(world)


def play(fleet: Fleet) -> dict[str, Any]:
    """Twice with one service, once with a broken one before it."""
    places: list[Any] = [flows.monitor, tasks.watch]
    for room in places:
        room.open_app = lambda: fleet
    places[0].gather_reports = list
    found: dict[str, Any] = {"drifted": [asyncio.run(flows.monitor.monitor())["drifted"] for _ in range(2)]}
    found["runs"] = sorted({row["reason"].rpartition(" ")[2] for row in fleet.world.ledger()})
    found["asked"] = [fleet.orchestrator.wait(run, 5).succeeded and fleet.world.asked for run in found["runs"]]
    page: Any = Artifact.get("drift-rater")
    found["page"] = page.data
    fleet.names = ["missing", "rater"]
    places[0].watch_drift = tasks.watch.watch_drift.with_options(retries=0)
    fleet.world.deliver(np.random.default_rng(1).normal(9, 1, (10, 2)))
    try:
        asyncio.run(flows.monitor.monitor())
    except EdgeloopError as error:
        found["error"] = str(error)
    looked = fleet.world.look()
    found["looked"] = looked.skip
    return found


if __name__ == "__main__":
    made = make(Path(sys.argv[1]))
    with prefect_test_harness(server_startup_timeout=120):
        said = play(made)
    print(json.dumps(said))
