"""Nothing holds a good release up for ever: not one broken node, a clock that was wrong, nor what was said long ago."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from edgeloop.fleet.rollout import pause, resume, revert, rollback, stop
from edgeloop.fleet.rollouts.decide import decide
from edgeloop.fleet.rollouts.facts import Facts
from edgeloop.fleet.rollouts.state_store import StateStore
from edgeloop.samples.releases import Wanted
from tests.unit.fleet.rollouts.world import LAST, NEW, NEXT, OLD, World
from tests.unit.samples.make import regressor

Make = Callable[..., World]
NODES = {"a": 0, "b": 0, "c": 1, "d": 1}


@pytest.fixture
def make() -> Iterator[Make]:
    """Worlds on OLD whose service then has this strategy."""
    with ExitStack() as stack:

        def new(nodes: dict[str, int] | None = None, **strategy: Any) -> World:
            rings = sorted(set((nodes or NODES).values()))
            world = World(regressor(rings=rings), nodes or NODES)
            stack.callback(world.close)
            world.delivered(OLD)
            world.service = regressor(rings=rings, rollout={"soak_seconds": 0, **strategy})
            return world

        yield new


def take_back(world: World) -> World:
    """NEW has reached nodes, and a person takes it back."""
    world.start(NEW)
    world.tick()
    world.follow()
    revert(world.fleet, "rater", "ann", "worse")
    return world


def test_a_node_that_cannot_go_back_does_not_hold_the_next_release_up(make: Make) -> None:
    world = take_back(make(patience_seconds=100))
    world.start(NEXT)
    world.nodes["a"].cannot = {OLD}
    for _ in range(3):
        world.tick(10)
        world.follow()
    assert [s.view.state for s in world.store.open()] == ["reverting", "queued"]
    for _ in range(12):
        world.tick(10)
        world.follow()
    states = {v.release: (v.state, v.reason) for v in world.store.ended("rater")}
    assert states[NEW][0] == "reverted" and "1 still serve it: a" in states[NEW][1]
    assert states[NEXT][0] == "done" and world.served() == ["next"] * 4


def test_a_place_that_refuses_to_go_back_does_not_hold_the_next_release_up(make: Make) -> None:
    world = take_back(make(patience_seconds=100))
    refused, late = Facts(applied=False, refused="no fleet says where it is"), timedelta(seconds=101)
    for at, newer, state in ((world.at, True, "reverting"), (world.at + late, False, "reverting")):
        assert decide(world.view(), replace(refused, newer=newer), at).view.state == state
    given_up = decide(world.view(), replace(refused, newer=True), world.at + late).view
    assert given_up.state == "reverted"
    assert given_up.reason == "reverted by ann: worse; going back is refused: no fleet says where it is"


@pytest.mark.parametrize("lacks", [{"applied": False}, {"complete": False}, {"stuck": None}, {"refused": "no key"}])
def test_nothing_is_taken_back_before_rings_are_told_and_all_was_heard(make: Make, lacks: dict[str, Any]) -> None:
    world = take_back(make())
    known = Facts(stuck=())
    assert decide(world.view(), known, world.at).view.state == "reverted"
    assert decide(world.view(), replace(known, **lacks), world.at).view.state == "reverting"
    assert decide(world.view(), replace(known, newer=True, **lacks), world.at).view.state == "reverting"


def test_what_was_counted_at_the_first_try_does_not_fail_the_second(make: Make) -> None:
    """Of nodes that did not switch yet, only what was before this rollout is known."""
    world = make({"a": 0, "b": 0})
    world.start(NEW)
    world.tick()
    for node in world.nodes.values():
        node.extra = {"release_answered": 20, "release_failed": 200}
    world.follow()
    world.tick()
    assert world.status().state == "reverting"
    for node in world.nodes.values():
        node.extra = {}
    world.follow()
    world.tick()
    assert world.status().state == "reverted"
    assert world.start(NEW, again=True)
    world.tick(200)
    world.follow("a")
    world.tick()
    assert world.status().state in {"moving", "done"}, world.status()
    assert world.run().state == "done"


def test_nodes_lost_long_before_do_not_hold_a_rollback_up(make: Make) -> None:
    world = make(absence_seconds=0)
    world.switch_off("b")
    world.tick(300)
    world.delivered(NEW)
    channel: Any = world.channel
    rollback(world.fleet, channel, world.service, "ann", "worse")
    status = world.run()
    assert (status.state, world.nodes["a"].serving) == ("done", OLD), status


@pytest.mark.parametrize("strategy", [{"soak_seconds": 60}, {"per_hour": 1}])
def test_a_clock_that_was_ahead_stops_nothing(make: Make, strategy: dict[str, Any]) -> None:
    world = make({"a": 0, "b": 0}, **strategy)
    world.at = ahead = world.at.replace(year=world.at.year + 5)
    world.start(NEW)
    for _ in range(4):
        world.tick()
        world.follow()
    world.at = ahead.replace(year=ahead.year - 5)
    for _ in range(400):
        world.tick(30)
        world.follow()
    assert world.status().state == "done", world.status()


def test_a_failure_counts_after_the_clock_was_put_right(make: Make) -> None:
    world = make({"a": 0, "b": 0}, soak_seconds=3600)
    world.at = ahead = world.at.replace(year=world.at.year + 5)
    world.start(NEW)
    for _ in range(3):
        world.tick()
        world.follow()
    world.at = ahead.replace(year=ahead.year - 5)
    world.tick()
    world.nodes["a"].cannot = {NEW}
    world.nodes["a"].serving = OLD
    world.follow()
    world.tick()
    world.tick()
    assert world.status().state == "reverting", world.status()


def test_nodes_heard_by_a_clock_that_was_ahead_are_not_there_for_years(make: Make) -> None:
    world = make({"a": 0, "b": 0})
    world.at = ahead = world.at.replace(year=world.at.year + 5)
    world.start(NEW)
    world.tick()
    world.follow()
    world.tick()
    world.at = ahead.replace(year=ahead.year - 5)
    del world.nodes["b"]
    world.start(NEXT)
    assert world.run().state == "done"


@pytest.mark.parametrize("word", [revert, stop])
def test_what_has_not_begun_is_dropped_and_takes_nothing_back(make: Make, word: Callable[..., Any]) -> None:
    """The one before it is done, and a crash kept it from taking its turn."""
    world = make()
    world.start(NEW)
    world.start(NEXT)
    store = StateStore(world.fleet.database)
    active, _ = store.opened("rater")
    assert active is not None
    rings = tuple(r.model_copy(update={"state": "passed", "below": "f" * 16}) for r in active.view.rings)
    assert store.save(active, active.view.model_copy(update={"state": "done", "rings": rings}), (), world.at)
    word(world.fleet, "rater", "ann", "no")
    world.tick()
    world.follow()
    assert (world.view().state, world.served()) == ("aborted", ["new"] * 4)
    assert world.status().state == "done" and "rollout 3 was dropped: " in world.status().dropped


def test_what_is_resumed_before_its_turn_still_waits_for_it(make: Make) -> None:
    """It begins at what the rings run then, which is not known before."""
    world = make()
    world.start(NEW)
    world.start(NEXT)
    store = StateStore(world.fleet.database)
    active, _ = store.opened("rater")
    assert active is not None
    assert store.save(active, active.view.model_copy(update={"state": "done"}), (), world.at)
    pause(world.fleet, "rater", "ann")
    resume(world.fleet, "rater", "ann")
    assert world.status().state == "queued"
    assert world.run().former == NEW


def test_what_is_dropped_from_the_queue_is_in_the_ledger(make: Make) -> None:
    world = make()
    world.start(NEW)
    world.start(NEXT)
    world.start(LAST, who="bob")
    assert not world.start(NEW, who="cat")
    rows = [(r["event"], r["version"], r["who"]) for r in reversed(world.fleet.history("rater"))]
    assert ("superseded", "next", "bob") in rows
    assert ("abort", "last", "cat") in rows


def test_a_release_that_is_wanted_again_drops_the_queued_one_whoever_is_faster(make: Make) -> None:
    from unittest.mock import patch

    world = make()
    world.start(NEW)
    world.start(NEXT)
    real, calls = StateStore.save, [0]

    def slow(self: StateStore, *args: Any) -> bool:
        calls[0] += 1
        return False if calls[0] == 1 else real(self, *args)

    with patch.object(StateStore, "save", slow):
        assert not world.start(NEW)
    assert [s.view.release for s in world.store.open()] == [NEW]


def test_one_services_broken_records_hold_up_no_other(make: Make) -> None:
    """Its records in the store were tampered with: it holds and says so, the other goes back as it must."""
    from edgeloop.fleet.metadata import ForeignMetadata
    from edgeloop.fleet.rollout import describe_rollout, start

    world = make()
    other = regressor(name="other", rings=[0])
    world.fleet.add_release("other", "x", LAST)
    start(world.fleet, world.rings, other, LAST, "why", "ann", at=world.at)
    world.start(NEW)

    class Broken:
        def __getattr__(self, name: str) -> Any:
            return getattr(world.channel, name)

        def point_many(self, service: str, rings: Any) -> dict[int, tuple[Wanted, bool]]:
            if service == "other":
                raise ForeignMetadata("ring 0 of other is not what was signed: restore the store")
            return world.channel.point_many(service, rings)

    for _ in range(8):
        world.tick(1, channel=Broken())
        world.follow()
    assert world.status().state == "done"
    held = describe_rollout(world.fleet, "other")
    assert held.state == "holding" and "restore the store" in held.reason
