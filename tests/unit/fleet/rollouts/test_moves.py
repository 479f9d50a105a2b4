"""Nodes that a person puts into another ring, with and without a rollout on its way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, cast

import pytest

from edgeloop.fleet.channel import Rings
from edgeloop.fleet.rollout import abort, revert
from edgeloop.fleet.rollouts.crowd import Crowd
from edgeloop.fleet.rollouts.moves import MoveStore, RingOfCluster, UnservedRing, held, move_node, settle
from edgeloop.fleet.signing import KeyUnavailable
from tests.unit.fleet.rollouts.world import NEW, NEXT, OLD, Node, Wired, World
from tests.unit.samples.broken import Crash, Fuse, Guarded, crash_everywhere
from tests.unit.samples.make import regressor
from tests.unit.test_store import postgres, url

__all__ = ["postgres", "url"]
RINGS = [0, 1, 2]
NODES = {"a": 0, "b": 0, "c": 1, "d": 1, "e": 2}
LONG = {"soak_seconds": 100, "patience_seconds": 300}


@pytest.fixture
def world() -> Iterator[World]:
    found = made()
    yield found
    found.close()


def made(**strategy: Any) -> World:
    """Everywhere the old release, and a strategy that stays in a ring for a while."""
    world = World(regressor(rings=RINGS, rollout={"soak_seconds": 0}), NODES)
    world.delivered(OLD)
    world.service = regressor(rings=RINGS, rollout={**LONG, **strategy})
    return world


def put(world: World, node: str, ring: int | None, **more: Any) -> str | None:
    rings, services = cast(Rings, more.pop("channel", world.channel)), {"rater": world.service}
    fleet = more.pop("fleet", world.fleet)
    return move_node(fleet, rings, services, node, ring, "ann", "repair", world.at, **more)


def test_pods_are_in_the_ring_that_their_cluster_knows(world: World) -> None:
    on_agents = world.service
    world.service = regressor(rings=RINGS, rollout={"target": "kubeedge"})
    for ring in (1, None):
        with pytest.raises(RingOfCluster, match=r"what is heard of a are pods of kubeedge: .* change it there"):
            put(world, "a", ring)
    assert not MoveStore(world.fleet.database).waiting() and not world.channel.moved
    services = {"rater": world.service, "other": on_agents}
    move_node(world.fleet, world.rings, services, "never-heard", 1, "ann", "", world.at)
    assert world.channel.moved == {"never-heard": 1}


def passed(world: World, ring: int) -> None:
    """Tick until this ring has passed, and not the next one."""
    for _ in range(200):
        world.tick(10)
        world.follow()
        if world.view().rings[ring].state == "passed":
            return
    raise AssertionError(world.status())


def serving(world: World) -> dict[str, str | None]:
    return {node.name: node.serving for node in world.nodes.values()}


def test_without_a_rollout_a_node_moves_at_once_and_back(world: World) -> None:
    assert put(world, "a", 2) is None
    assert world.channel.moved == {"a": 2}
    assert put(world, "a", None) is None
    assert world.channel.moved == {} and MoveStore(world.fleet.database).waiting() == []
    rows = [row for row in world.fleet.history("rater") if row["event"] == "ring"]
    assert [(row["who"], row["reason"]) for row in rows] == [
        ("ann", "node a goes to the ring of its node.yaml: repair"),
        ("ann", "node a goes to ring 2: repair"),
    ]


def test_a_node_that_joins_a_ring_that_passed_gets_its_release(world: World) -> None:
    world.start(NEW)
    passed(world, 0)
    assert serving(world)["e"] == OLD
    assert put(world, "e", 0) is None
    world.follow()
    assert serving(world)["e"] == NEW
    world.nodes["late"] = Node("late", 0)
    world.follow()
    assert serving(world)["late"] == NEW
    assert world.run(10).state == "done"


def test_a_node_keeps_what_it_runs_until_its_new_ring_comes(world: World) -> None:
    world.start(NEW)
    passed(world, 0)
    why = put(world, "a", 2)
    assert why == "a stays in ring 0 until the rollout of rater has come to ring 2 or ended"
    seen = set()
    while not world.status().has_ended:
        world.tick(10)
        world.follow()
        seen.add((world.nodes["a"].ring, serving(world)["a"]))
    assert seen <= {(0, NEW), (2, NEW)}
    world.tick(1)
    world.follow()
    assert world.nodes["a"].ring == 2 and held(world.fleet) == []
    assert world.channel.moved == {"a": 2}


def test_a_node_whose_move_waits_is_taken_back_with_its_old_ring(world: World) -> None:
    world.start(NEW)
    passed(world, 0)
    assert put(world, "a", 2)
    revert(world.fleet, "rater", "ann", "worse")
    status = world.run(10)
    assert status.state == "reverted" and set(serving(world).values()) == {OLD}
    world.tick(1)
    world.follow()
    assert world.nodes["a"].ring == 2 and serving(world)["a"] == OLD


def test_a_node_that_left_a_touched_ring_is_taken_back_too(world: World) -> None:
    world.start(NEW)
    passed(world, 1)
    assert put(world, "a", 1) is None  # ring 1 has it as well
    world.follow()
    world.nodes["c"].ring = 0
    world.follow()
    revert(world.fleet, "rater", "ann", "worse")
    assert world.run(10).state == "reverted"
    assert set(serving(world).values()) == {OLD}


@pytest.mark.parametrize("follow", [True, False])
def test_with_follow_or_at_once_it_goes_back_with_its_new_ring(follow: bool) -> None:
    world = made(**({"moves": "follow"} if follow else {}))
    world.start(NEW)
    passed(world, 0)
    assert put(world, "a", 2, at_once=not follow) is None
    world.follow()
    assert (world.nodes["a"].ring, serving(world)["a"]) == (2, OLD)
    assert world.run(10).state == "done"
    assert set(serving(world).values()) == {NEW}
    world.close()


def test_the_later_of_two_moves_stands(world: World) -> None:
    world.start(NEW)
    passed(world, 0)
    assert put(world, "a", 2)
    assert put(world, "a", 0) is None  # where it is
    assert held(world.fleet) == []
    world.run(10)
    world.tick()
    world.follow()
    assert world.nodes["a"].ring == 0


def test_after_an_abort_nothing_is_waited_for(world: World) -> None:
    world.start(NEW)
    passed(world, 0)
    assert put(world, "a", None) and put(world, "b", 2)
    abort(world.fleet, "rater", "ann", "enough")
    world.tick()
    world.follow()
    assert world.channel.moved == {"b": 2} and held(world.fleet) == []
    assert serving(world) == {"a": NEW, "b": OLD, "c": OLD, "d": OLD, "e": OLD}


def test_a_ring_that_no_release_comes_to_is_refused(world: World) -> None:
    for node in ("a", "nobody"):
        with pytest.raises(UnservedRing, match=r"ring 7 is not one of (rater|any service)"):
            put(world, node, 7)
    assert world.channel.moved == {} and not [r for r in world.fleet.history("rater") if r["event"] == "ring"]
    assert put(world, "nobody", 2) is None  # it is told when it first looks


def test_what_the_channel_cannot_say_is_not_written(world: World) -> None:
    class Unfit:
        def move(self, *_: object) -> bool:
            raise KeyUnavailable("bring it")

    with pytest.raises(KeyUnavailable):
        put(world, "a", 2, channel=Unfit())
    assert MoveStore(world.fleet.database).waiting() == []


def test_a_channel_that_cannot_say_it_any_more_stops_no_rollout(world: World) -> None:
    world.start(NEW)
    passed(world, 0)
    put(world, "a", 2)
    abort(world.fleet, "rater", "ann", "enough")

    class Unfit(Guarded):
        def move(self, *_: object) -> bool:
            raise KeyUnavailable("bring it")

    world.start(NEXT)
    status = world.tick(1, channel=Unfit(world.channel, Fuse(99)))
    assert status is not None and status.state == "moving"
    world.tick(1)
    assert [move.node for move, _ in held(world.fleet)] + list(world.channel.moved) == ["a"]


def test_cut_off_anywhere_the_next_tick_moves_it_once() -> None:
    def run(fuse: Fuse) -> None:
        world = made()
        asked = False
        try:
            cut: Any = Wired(world.fleet, fuse)
            put(world, "a", 2, fleet=cut, channel=Guarded(world.channel, fuse, "move"))
        except Crash:
            asked = bool(MoveStore(world.fleet.database).waiting())
        else:
            asked = True
        world.tick()
        assert world.channel.moved == ({"a": 2} if asked else {}) or world.channel.moved == {"a": 2}
        assert MoveStore(world.fleet.database).waiting() == []
        assert settle(world.fleet, cast(Rings, world.channel)) == []
        world.close()

    assert crash_everywhere(run) >= 3


def test_a_slow_writer_does_not_undo_a_later_move(world: World) -> None:
    """It asked what is due before, and is let to write only after another move was made."""

    class Slow:
        def move(self, fleet: str, asked: Any) -> bool:
            before = asked()
            if before == {"a": 2}:
                put(world, "a", 1)  # overtaken: the channel asks again
            return world.channel.move(fleet, asked)

    put(world, "a", 2, channel=Slow())
    assert world.channel.moved == {"a": 1}
    assert MoveStore(world.fleet.database).waiting() == []


def test_moves_and_counts_are_the_same_on_every_database(url: str) -> None:
    world = World(regressor(rings=RINGS, rollout={"soak_seconds": 0}), NODES, url)
    with closing(world):
        world.delivered(OLD)
        world.service = regressor(rings=RINGS, rollout=LONG)
        world.start(NEW)
        passed(world, 0)
        assert put(world, "a", 2) and put(world, "e", 0) is None
        assert put(world, "a", None)
        assert [(move.node, move.ring) for move, _ in held(world.fleet)] == [("a", None)]
        world.follow()
        world.switch_off("c")
        world.tick(1)
        crowd = Crowd(world.fleet.database)
        counts = [(one.ring, one.nodes, one.online, one.there, one.failing) for one in crowd.counts(world.at)]
        assert counts == [(0, 3, 3, 0, 0), (1, 2, 1, 0, 0)]
        assert [row.node for row in crowd.worst("rater", 1, world.at)] == ["c"]
        abort(world.fleet, "rater", "ann", "enough")
        world.tick(1)
        assert world.channel.moved == {"e": 0} and held(world.fleet) == []
