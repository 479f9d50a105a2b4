"""Wherever a tick is cut off, the next one goes on, and all ends as if there had been no crash."""

from __future__ import annotations

from typing import Any

import pytest

from edgeloop.fleet.rollout import start
from tests.unit.fleet.rollouts.world import NEW, OLD, Wired, World
from tests.unit.samples.broken import Crash, Fuse, Guarded, crash_everywhere
from tests.unit.samples.make import regressor


@pytest.mark.parametrize(("refuses", "batches"), [(None, [1, 1.0]), ("n0", [1, 1.0]), ("n3", [1.0])])
def test_crash_at_every_point_ends_as_if_there_had_been_none(refuses: str | None, batches: list[float]) -> None:
    ends: list[Any] = []

    def run(fuse: Fuse) -> None:
        service = regressor(rings=[0, 1], rollout={"batches": batches})
        world = World(service, {"n0": 0, "n1": 0, "n3": 1})
        world.delivered(OLD)
        if refuses:
            world.nodes[refuses].cannot = {NEW}
        fleet: Any = Wired(world.fleet, fuse)
        parts = {
            "fleet": fleet,
            "channel": Guarded(world.channel, fuse, "point_many", "refresh", "wanted"),
            "broker": Guarded(world.broker, fuse, "publish", "gather"),
        }
        try:
            start(fleet, parts["channel"], service, NEW, "why", "ann", at=world.at)
            while world.tick(**parts) is not None:
                world.follow()
        except Crash:
            world.follow()  # the nodes have gone on before another process continues
            world.start(NEW)
            world.run()
        ends.append(final(world))
        world.close()

    assert crash_everywhere(run, 400) > 30
    assert all(end == ends[-1] for end in ends)
    assert ends[-1][1] == ("reverted" if refuses else "done")


def final(world: World) -> Any:
    """Where everything ended, and what the ledger says; a crash may have made sequences and turns longer."""
    history = [(r["event"], r["verdict"], r["version"], r["former"], r["who"]) for r in world.fleet.history("rater")]
    status = world.status()
    return world.channel_says(), status.state, status.wave, status.former, status.reason, history, world.served()
