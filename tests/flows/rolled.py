"""Runs the real flow `rollout` over sites in memory, in a process of its own: Prefect leaves sockets to the exit.

``python -m tests.flows.rolled FOLDER`` prints what came of it as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness

import flows.rollout
import tasks.deploy
from edgeloop.fleet.rollouts.effects import Action
from edgeloop.fleet.targets.protocol import Outcome
from tests.unit.fleet.rollouts.test_kserve_rollout import Sites
from tests.unit.fleet.rollouts.world import NEW


def app_of(world: Sites) -> Any:
    """What tasks ask of the app, of a world in memory."""
    app: Any = SimpleNamespace(fleet=world.fleet, channel=world.channel, service=lambda _: world.service)
    app.targets, app.images, app.broker = world.reach.target, world.images.of, lambda: nullcontext(world.broker)
    return app


def names_of_tasks() -> list[str]:
    """Of tasks on the target, each once."""
    with get_client(sync_client=True) as client:
        found = {run.name for run in client.read_task_runs()}
    return sorted(name for name in found if "on kserve" in name)


def play(world: Sites) -> dict[str, Any]:
    """Tick while nothing moves, then until a release is everywhere."""
    asyncio.run(flows.rollout.rollout())
    found: dict[str, Any] = {"at rest": names_of_tasks()}
    world.start(NEW)
    while not world.status().has_ended:
        asyncio.run(flows.rollout.rollout())
        world._control()
    return found | {"state": world.status().state, "runs": world.runs(), "tasks": names_of_tasks()}


@flow
def at_once() -> list[str]:
    """Three actions that wait for one another."""
    together = threading.Barrier(3, timeout=60)

    def wait() -> Outcome:
        together.wait()
        return Outcome("done")

    return [one.state for one in tasks.deploy.fan_out([Action(f"ring {n}", wait) for n in range(3)])]


if __name__ == "__main__":
    made = Sites(Path(sys.argv[1]))
    with pytest.MonkeyPatch.context() as patch, prefect_test_harness(server_startup_timeout=120):
        patch.setattr(tasks.deploy, "open_app", lambda: app_of(made))
        said = play(made) | {"at once": at_once()}
    print(json.dumps(said))
