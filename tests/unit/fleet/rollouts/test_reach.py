"""A release reaches no more nodes than it may, whoever is away, gone for ever, or new in a ring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest

from edgeloop.fleet.rollout import approve
from edgeloop.fleet.rollouts.moves import move_node
from edgeloop.fleet.rollouts.roster import GONE
from edgeloop.samples.cohorts import place
from tests.unit.fleet.rollouts.world import NEW, OLD, Node, World
from tests.unit.samples.make import regressor

Make = Callable[..., World]
TEN = {f"n{number}": 0 for number in range(10)}


@pytest.fixture
def make() -> Iterator[Make]:
    """Worlds on OLD (or ``first`` nothing) whose service then has this strategy."""
    with ExitStack() as stack:

        def new(nodes: dict[str, int], *, first: bool = False, **strategy: Any) -> World:
            rings = sorted(set(nodes.values()))
            world = World(regressor(rings=rings), nodes)
            stack.callback(world.close)
            if not first:
                world.delivered(OLD)
            world.service = regressor(rings=rings, rollout={"soak_seconds": 0, **strategy})
            return world

        yield new


def on_their_way(world: World, rounds: int, seconds: float = 10.0) -> None:
    for _ in range(rounds):
        world.tick(seconds)
        world.follow()


def test_a_batch_is_of_nodes_that_are_there(make: Make) -> None:
    world = make(TEN, batches=[1, 0.5], absence_seconds=20)
    first = min(TEN, key=lambda name: place("rater-2", name))
    world.switch_off(first)
    world.start(NEW)
    served = []
    for _ in range(8):
        on_their_way(world, 1)
        served.append(world.served().count("new"))
    assert served[-1] == 9
    assert 1 in served, served


def test_nodes_gone_for_ever_do_not_let_others_fail(make: Make) -> None:
    """Five of a hundred may fail; of ten that are there and ninety that were thrown away, none."""
    world = make({f"n{number:02}": 0 for number in range(100)})
    for name in list(world.nodes)[10:]:
        world.switch_off(name)
    world.tick()
    world.start(NEW)
    world.tick()  # it hears them go
    world.pass_time(GONE.total_seconds())
    for name in list(world.nodes)[10:]:
        del world.nodes[name]
    world.nodes["n03"].cannot = {NEW}
    on_their_way(world, 4)
    status = world.status()
    assert (status.state, status.rings[0].nodes) == ("reverted", 10)


def test_a_first_release_waits_for_its_word_too(make: Make) -> None:
    world = make({"a": 0, "b": 1}, first=True, rings={1: {"approve": True}})
    world.start(NEW)
    on_their_way(world, 5)
    status = world.status()
    assert (status.wave, status.waits, world.served()) == (1, "approval", ["new", "-"])
    approve(world.fleet, "rater", 1, "bob")
    on_their_way(world, 3)
    assert (world.status().state, world.served()) == ("done", ["new", "new"])


def test_a_first_release_waits_for_its_window_too(make: Make) -> None:
    world = make({"a": 0}, first=True)
    hour = (world.at + timedelta(hours=2)).hour
    window = {"from": f"{hour:02}:00", "to": f"{(hour + 1) % 24:02}:00", "zone": "UTC"}
    world.service = regressor(rings=[0], rollout={"soak_seconds": 0, "windows": [window]})
    world.start(NEW)
    on_their_way(world, 2)
    status = world.status()
    assert (status.waits, world.served()) == ("window", ["-"])
    assert status.next_look is not None
    world.pass_time((status.next_look - world.at).total_seconds())
    on_their_way(world, 3)
    assert world.served() == ["new"]


def test_a_node_that_comes_from_a_ring_ahead_has_not_failed(make: Make) -> None:
    """It runs the release, joins a ring that only stages it, and is told to go back: no fault of the release."""
    world = make({"a": 0, "b": 0, "c": 1, "d": 1}, moves="follow", rings={1: {"approve": True}})
    world.start(NEW)
    on_their_way(world, 4)
    assert (world.status().waits, world.served()) == ("approval", ["new", "new", "old", "old"])
    channel: Any = world.rings
    move_node(world.fleet, channel, {"rater": world.service}, "a", 1, "ann", "", world.at)
    on_their_way(world, 2)
    assert world.nodes["a"].serving == OLD
    approve(world.fleet, "rater", 1, "bob")
    on_their_way(world, 4)
    assert world.status().state == "done", world.status()


def test_a_node_that_moves_while_a_ring_stages_has_not_failed(make: Make) -> None:
    world = make({"a": 0, "b": 0, "c": 1, "d": 1}, moves="follow", rings={1: {"batches": [1, 1.0]}})
    world.start(NEW)
    while world.status().rings[1].state != "staging":
        world.tick(1)
        world.follow("a", "b")
    channel: Any = world.rings
    move_node(world.fleet, channel, {"rater": world.service}, "a", 1, "ann", "", world.at)
    world.tick(1)
    world.follow("a")
    assert (world.nodes["a"].ring, world.nodes["a"].serving) == (1, OLD)
    on_their_way(world, 6, 1)
    assert world.status().state == "done", world.status()


def test_a_node_that_is_back_after_long_is_of_its_ring_again(make: Make) -> None:
    world = make({"a": 0, "b": 0})
    world.switch_off("b")
    world.tick()
    world.pass_time(GONE.total_seconds())
    world.nodes["b"].online = True
    world.start(NEW)
    assert world.run().rings[0].nodes == 2
    assert isinstance(world.nodes["b"], Node) and world.nodes["b"].serving == NEW
