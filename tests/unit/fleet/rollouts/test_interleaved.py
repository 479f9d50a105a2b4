"""What a person says between a tick's looking and its writing is not lost: the tick's decision is dropped instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgeloop.fleet.rollout import abort, pause, revert
from tests.unit.fleet.rollouts.world import NEW, OLD, Hooked, World
from tests.unit.samples.make import regressor


@pytest.mark.parametrize(("word", "state"), [(abort, "aborted"), (revert, "reverting"), (pause, "moving")])
@pytest.mark.parametrize("write", range(8))
def test_a_word_wins_over_a_tick_that_looked_before(word: Callable[..., Any], state: str, write: int) -> None:
    world = World(regressor(rings=[0, 1]), {"a": 0, "b": 1})
    world.delivered(OLD)
    world.start(NEW)
    world.tick()
    world.follow()
    left = [write]

    def speak() -> None:
        left[0] -= 1
        if left[0] == -1:
            word(world.fleet, "rater", "ann", "why")

    fleet: Any = Hooked(world.fleet, speak)
    fleet.database = Hooked(world.fleet.database, speak, "writing")
    world.tick(1, fleet=fleet, channel=Hooked(world.channel, speak, "point_many"))
    assert left[0] < 0, "the tick has fewer writes than this test tries"
    view = world.view()
    assert view.state == state
    assert bool(view.paused_by) == (word is pause)
    world.tick()
    world.follow()
    world.tick()
    if word is not pause:
        assert world.channel_says()[1] == "old"
        assert world.status().has_ended
    world.close()
