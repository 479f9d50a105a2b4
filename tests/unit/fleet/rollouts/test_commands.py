"""People are obeyed, a newer release takes over in its turn, and a rollback goes to what was good before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgeloop.fleet.rollout import abort, approve, pause, resume, revert, rollback, stop
from edgeloop.fleet.rollouts.commands import GoingBack, NothingToResume, RolloutEnded, SameApprover
from edgeloop.fleet.rollouts.rollback import NothingToRollBack
from tests.unit.fleet.rollouts.strategies import Make, events, make
from tests.unit.fleet.rollouts.world import LAST, NEW, NEXT, OLD

__all__ = ["make"]


# --- words


def test_nothing_begins_while_it_is_paused_and_a_failure_is_taken_back(make: Make) -> None:
    world = make()
    world.start(NEW)
    world.tick()
    pause(world.fleet, "rater", "ann", "lunch")
    for _ in range(4):
        world.tick()
        world.follow()
    assert (world.channel_says(), world.status().waits) == (["new", "old"], "pause")
    resume(world.fleet, "rater", "ann")
    world.tick()
    assert world.channel_says() == ["new", "new"]
    pause(world.fleet, "rater", "ann", "again")
    world.nodes["c"].cannot = {NEW}
    world.follow()
    world.tick()
    assert world.status().state == "reverting"
    with pytest.raises(GoingBack, match="is being taken back"):
        pause(world.fleet, "rater", "ann")
    assert events(world) == [("pause", "ann"), ("resume", "ann"), ("pause", "ann"), ("revert", "rollout")]


def test_abort_leaves_what_passed_and_takes_the_unfinished_ring_back(make: Make) -> None:
    world = make(batches=[1])
    world.start(NEW)
    while world.served()[2:].count("new") == 0:
        world.tick()
        world.follow()
    abort(world.fleet, "rater", "ann", "enough")
    world.tick()
    world.follow()
    assert world.channel_says() == ["new", "old"]
    assert world.served() == ["new"] * 2 + ["old"] * 4
    assert not world.start(NEW)
    assert world.start(NEW, again=True)
    assert world.run().state == "done"


def test_after_an_abort_a_failure_goes_back_to_what_was_done_before(make: Make) -> None:
    world = make()
    world.start(NEW)
    world.tick()
    world.follow()
    world.tick()
    abort(world.fleet, "rater", "ann", "enough")
    world.nodes["d"].cannot = {NEXT}
    world.start(NEXT)
    assert world.run().state == "reverted"
    assert world.channel_says() == ["old", "old"]


@pytest.mark.parametrize("word", [pause, resume, abort, revert])
def test_a_rollout_that_ended_is_not_spoken_to(make: Make, word: Callable[..., Any]) -> None:
    world = make()
    with pytest.raises(RolloutEnded, match="nothing of rater is under way, its last rollout is done"):
        word(world.fleet, "rater", "ann", "why")
    with pytest.raises(RolloutEnded, match="it was never rolled out"):
        word(world.fleet, "other", "ann", "why")
    assert events(world) == []


def test_there_is_nothing_to_resume(make: Make) -> None:
    world = make()
    world.start(NEW)
    with pytest.raises(NothingToResume, match="moving and not paused"):
        resume(world.fleet, "rater", "ann")


def test_stop_takes_back_whatever_is_under_way_and_what_waits_behind_it(make: Make) -> None:
    world = make()
    assert not stop(world.fleet, "rater", "alias", "deleted")
    world.start(NEW)
    world.tick()
    world.follow()
    world.start(NEXT)
    assert world.status().state == "queued"
    assert stop(world.fleet, "rater", "alias", "deleted")
    assert not stop(world.fleet, "rater", "alias", "deleted")
    for _ in range(3):
        world.tick()
        world.follow()
    assert world.channel_says() == ["old", "old"]
    assert world.store.open() == []


# --- newer releases


def test_a_newer_release_waits_for_the_ring_and_takes_over(make: Make) -> None:
    world = make()
    world.start(NEW)
    world.tick()
    world.follow("a")
    world.start(NEXT)
    world.start(LAST)
    world.tick()
    assert [s.view.state for s in world.store.open()] == ["moving", "queued"]
    assert world.channel_says() == ["new", "old"]
    world.follow()
    world.tick()
    assert world.channel_says() == ["last", "old"]
    assert world.run().release == LAST
    states = [(v.release, v.state) for v in reversed(world.store.ended("rater"))]
    assert states == [(OLD, "done"), (NEW, "superseded"), (NEXT, "superseded"), (LAST, "done")]


def test_a_newer_release_waits_while_a_person_paused_the_one_before(make: Make) -> None:
    world = make()
    world.start(NEW)
    world.tick()
    pause(world.fleet, "rater", "ann")
    world.start(NEXT)
    for _ in range(4):
        world.tick()
        world.follow()
    assert world.status().state == "queued"
    resume(world.fleet, "rater", "ann")
    assert world.run().state == "done"


def test_what_is_on_its_way_stays_when_the_alias_comes_back_to_it(make: Make) -> None:
    world = make()
    world.start(NEW)
    world.tick()
    world.start(NEXT)
    assert not world.start(NEW)
    world.follow()
    world.run()
    assert world.channel_says() == ["new", "new"]


def test_a_second_word_while_it_is_paused_says_that_it_is(make: Make) -> None:
    world = make(rings={1: {"approve": True}})
    world.start(NEW)
    assert world.run().waits == "approval"
    pause(world.fleet, "rater", "eve")
    approve(world.fleet, "rater", 1, "bob")
    with pytest.raises(SameApprover, match="eve paused the rollout, go on with  edgeloop rollout resume rater"):
        approve(world.fleet, "rater", 1, "bob")


def test_after_its_word_a_ring_does_not_ask_for_it_until_the_next_tick(make: Make) -> None:
    world = make(rings={1: {"approve": True}})
    world.start(NEW)
    assert world.run().waits == "approval"
    said = approve(world.fleet, "rater", 1, "bob")
    assert (said.waits, said.reason) == ("", "ring 1 may switch, says bob")
    assert world.run().state == "done"


def test_what_all_rings_run_already_is_not_begun(make: Make) -> None:
    world = make()
    world.nodes["a"].cannot = {NEW}
    world.start(NEW)
    world.run()
    assert not world.start(OLD)


# --- rollback


def test_rollback_takes_every_ring_at_once_to_what_was_good_before(make: Make) -> None:
    world = make()
    for release in (NEW, NEXT):
        world.delivered(release)
    for name, back in (("bob", "new"), ("eve", "old")):
        status = rollback(world.fleet, world.rings, world.service, name, "customers")
        assert status.state == "moving"
        world.tick()
        assert world.channel_says() == [back, back]
        assert world.run().state == "done"
        assert world.served() == [back] * 6
    with pytest.raises(NothingToRollBack, match="rater has no good release before"):
        rollback(world.fleet, world.rings, world.service, "eve", "more")
    assert not world.start(NEW), "what a rollback left does not come back by itself"
    assert world.start(NEXT)


def test_rollback_goes_past_a_release_that_was_withdrawn(make: Make) -> None:
    world = make()
    for release in (NEW, NEXT):
        world.delivered(release)
    world.channel.approved.discard(NEW)
    rollback(world.fleet, world.rings, world.service, "bob", "customers")
    assert world.run().state == "done"
    assert world.served() == ["old"] * 6


def test_rollback_of_what_is_under_way_reverts_it(make: Make) -> None:
    world = make()
    world.start(NEW)
    world.tick()
    world.follow()
    rollback(world.fleet, world.rings, world.service, "bob", "customers")
    assert world.run().state == "reverted"
    assert world.served() == ["old"] * 6


def test_rollback_of_the_first_release_has_nowhere_to_go(make: Make) -> None:
    world = make()
    with pytest.raises(NothingToRollBack):
        rollback(world.fleet, world.rings, world.service, "bob", "customers")
    assert world.store.open() == []
