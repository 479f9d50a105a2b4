"""A rollout goes its way on SQLite and on PostgreSQL alike."""

from __future__ import annotations

from edgeloop.fleet.rollout import abort, rollback
from tests.unit.fleet.rollouts.world import NEW, NEXT, OLD, World
from tests.unit.samples.make import regressor
from tests.unit.test_store import postgres, url

__all__ = ["postgres", "url"]


def test_a_rollout_goes_its_way(url: str) -> None:
    world = World(regressor(rings=[0, 1], rollout={"batches": [1]}), {"a": 0, "b": 0, "c": 1}, url)
    world.delivered(OLD)
    world.start(NEW)
    world.tick()
    world.start(NEXT)
    assert world.run().state == "done"
    assert world.served() == ["next"] * 3
    rollback(world.fleet, world.rings, world.service, "ann", "why")
    assert world.run().state == "done"
    assert world.served() == ["old"] * 3
    world.start(NEW)
    world.tick()
    [saved] = world.store.open()
    abort(world.fleet, "rater", "ann", "why")
    assert not world.store.save(saved, saved.view, (), world.at)
    assert world.store.ended("rater")[0].state == "aborted"
    world.close()
