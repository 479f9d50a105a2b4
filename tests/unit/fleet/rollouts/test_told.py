"""What people are told of a rollout that was dropped before its turn, and of rings that were taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from edgeloop.fleet.rollout import pause, revert
from edgeloop.fleet.rollouts.commands import RolloutEnded
from edgeloop.fleet.rollouts.status import describe_open, ring_status
from tests.unit.fleet.rollouts.world import NEW, NEXT, OLD, World
from tests.unit.samples.make import regressor

Make = Callable[..., World]


@pytest.fixture
def make() -> Iterator[Make]:
    """Worlds on OLD whose service then has this strategy."""
    with ExitStack() as stack:

        def new(**strategy: Any) -> World:
            world = World(regressor(rings=[0, 1]), {"a": 0, "b": 0, "c": 1})
            stack.callback(world.close)
            world.delivered(OLD)
            world.service = regressor(rings=[0, 1], rollout=strategy)
            return world

        yield new


def test_what_was_dropped_before_its_turn_is_named_and_the_one_before_it_shown(make: Make) -> None:
    world = make()
    world.start(NEW)
    world.tick()
    world.start(NEXT)
    assert world.status().dropped == "" and world.status().state == "queued"
    assert not world.start(NEW)
    said = "rollout 3 was dropped: ann wants the release before it again"
    status = world.status()
    assert (status.rollout, status.release, status.state, status.dropped) == (2, NEW, "moving", said)
    assert [one.rollout for one in describe_open(world.fleet, "rater")] == [2]
    world.follow()
    assert world.run().state == "done"
    assert (world.status().rollout, world.status().dropped) == (2, said)
    with pytest.raises(RolloutEnded, match="its last rollout is done"):
        pause(world.fleet, "rater", "ann")
    world.start(NEXT, again=True)
    assert (world.status().rollout, world.status().dropped) == (4, "")


def test_rings_of_what_was_taken_back_say_so(make: Make) -> None:
    world = make(rings={1: {"approve": True}})
    world.start(NEW)
    assert world.run().waits == "approval"
    assert (world.status().rings[0].state, world.status().rings[0].switched) == ("passed", 2)
    assert revert(world.fleet, "rater", "bob", "customers").rings[0].state == "reverting"
    assert world.run().state == "reverted"
    status = world.status()
    assert [(ring.state, ring.switched) for ring in status.rings] == [("reverted", 0)] * 2
    assert status.switched == 0
    assert [ring.state for ring in world.view().rings] == ["passed", "staged"], "what is kept stays as it was"


def test_a_first_release_that_is_taken_back_says_that_there_is_nothing_before_it() -> None:
    world = World(regressor(rings=[0, 1]), {"a": 0, "b": 1})
    try:
        world.start(NEW)
        assert revert(world.fleet, "rater", "ann", "why").reason == "reverted by ann: why"
        world.start(NEXT)
        world.tick()
        world.follow()
        said = revert(world.fleet, "rater", "ann", "why")
        assert said.reason == "reverted by ann: why; there is no good release before it, so rings that have it keep it"
        world.tick()
        assert world.channel_says() == ["next", "-"]
    finally:
        world.close()


def test_rings_say_reverted_only_where_there_was_something_to_go_back_to(make: Make) -> None:
    world = make()
    world.nodes["a"].cannot = {NEW}
    world.start(NEW)
    assert world.run().state == "reverted"
    assert [ring.state for ring in world.status().rings] == ["failed", "waiting"]
    first = world.view().with_ring(world.view().rings[0].model_copy(update={"state": "soaking", "stands": None}))
    assert ring_status(first.model_copy(update={"former": None}), first.rings[0]).state == "soaking"
    stuck = first.model_copy(update={"reason": f"{first.cause}; 1 still serve it: a"})
    ring = first.rings[0].model_copy(update={"switched": 1})
    assert (ring_status(stuck, ring).state, ring_status(stuck, ring).switched) == ("reverted", 1)
