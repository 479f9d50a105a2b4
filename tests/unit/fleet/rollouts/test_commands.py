"""Strategies are followed, people are obeyed, and what cannot be done is refused before anything changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from edgeloop.errors import BadInput
from edgeloop.fleet.rollout import abort, approve, pause, resume, revert, rollback, stop
from edgeloop.fleet.rollouts.batches import reach
from edgeloop.fleet.rollouts.checks import BadStrategy
from edgeloop.fleet.rollouts.commands import GoingBack, NothingToResume, RolloutEnded, SameApprover, UnknownRing
from edgeloop.fleet.rollouts.lease import LEASE, lease
from edgeloop.fleet.rollouts.plan import UnknownVersion, plan_rollout, release_named
from edgeloop.fleet.rollouts.rollback import NothingToRollBack
from edgeloop.fleet.rollouts.standing import freeze
from edgeloop.fleet.rollouts.state_store import StateStore
from edgeloop.fleet.rollouts.windows import BadWindow
from edgeloop.store import FleetStore
from edgeloop.store.tables import rollouts
from tests.unit.fleet.rollouts.world import LAST, NEW, NEXT, OLD, World, of_day
from tests.unit.samples.make import regressor

Make = Callable[..., World]
SIX = {"a": 0, "b": 0, "c": 1, "d": 1, "e": 1, "f": 1}


@pytest.fixture
def make() -> Iterator[Make]:
    """Worlds on OLD whose service then has this strategy."""
    with ExitStack() as stack:

        def new(nodes: dict[str, int] | None = None, at: datetime | None = None, **strategy: Any) -> World:
            rings = sorted(set((nodes or SIX).values()))
            world = World(regressor(rings=rings), nodes or SIX)
            stack.callback(world.close)
            world.at = at or world.at
            world.delivered(OLD)
            world.service = regressor(rings=rings, rollout=strategy)
            return world

        yield new


def events(world: World) -> list[tuple[str, str]]:
    """What the ledger says besides promotions and ends, the oldest first."""
    rows = [(r["event"], r["who"]) for r in reversed(world.fleet.history("rater"))]
    return [row for row in rows if row[0] not in {"promotion", "done"}]


# --- strategies


def test_a_batch_is_staged_by_all_and_run_by_some(make: Make) -> None:
    world = make(batches=[1, 0.5])
    world.start(NEW)
    seen = []
    for _ in range(14):
        world.tick()
        world.follow()
        staged = [node.staged for node in world.nodes.values()]
        seen.append((world.channel_says()[1], world.served()[2:].count("new"), staged))
    on_the_way = [(says, count) for says, count, _ in seen if "/" in says]
    assert on_the_way[0][1] == 0
    assert {count for _, count in on_the_way} == {0, 1, 3, 4}
    assert any(staged[2:] == [NEW] * 4 and count == 0 for _, count, staged in seen)
    assert world.status().state == "done"
    assert world.channel_says() == ["new", "new"]
    assert world.served() == ["new"] * 6


def test_what_cannot_be_staged_is_taken_back_before_any_node_switches(make: Make) -> None:
    world = make(batches=[1])
    world.nodes["b"].cannot = {NEW}
    world.start(NEW)
    served = set()
    for _ in range(6):
        world.tick()
        world.follow()
        served |= set(world.served())
    assert world.status().state == "reverted"
    assert served == {"old"}


@pytest.mark.parametrize(
    ("batches", "nodes", "found"),
    [
        ([1.0], 5, [5]),
        ([1], 5, [1, 5]),
        ([1, 0.5], 10, [1, 6, 10]),
        ([0.01], 10, [1, 10]),
        ([3, 3, 3, 3], 10, [3, 6, 9, 10]),
        ([50], 10, [10]),
        ([1.0], 0, [0]),
    ],
)
def test_batches_reach_every_node_in_the_end(batches: list[int | float], nodes: int, found: list[int]) -> None:
    reached = [reach(batches, 0, nodes)]
    while reached[-1] < nodes:
        reached.append(reach(batches, reached[-1], nodes))
    assert reached == found


def test_a_ring_soaks_before_its_verdict(make: Make) -> None:
    world = make(soak_seconds=60)
    world.start(NEW)
    for _ in range(3):
        world.tick(10)
        world.follow()
    status = world.status()
    assert (status.wave, status.waits, status.rings[0].state) == (0, "soak", "soaking")
    assert status.next_look == world.at - timedelta(seconds=20) + timedelta(seconds=60)
    world.nodes["a"].extra = {"refused": NEW, "serving": OLD}
    world.follow()
    world.nodes["a"].cannot = {NEW}
    world.tick(10)
    assert world.status().state == "reverting"


def test_a_ring_waits_for_a_word_and_for_its_window(make: Make) -> None:
    window = {"from": "06:00", "to": "18:00", "zone": "UTC"}
    world = make(at=of_day(20), rings={1: {"approve": True, "windows": [window]}})
    world.start(NEW)
    for _ in range(5):
        world.tick()
        world.follow()
    assert (world.status().wave, world.status().waits) == (1, "approval")
    assert world.channel_says() == ["new", "old/new"]
    with pytest.raises(UnknownRing, match="ring 0 of the rollout of rater waits for no word"):
        approve(world.fleet, "rater", 0, "bob")
    approve(world.fleet, "rater", 1, "bob")
    with pytest.raises(SameApprover, match=r"bob approved ring 1 of rater already: the next tick goes on$"):
        approve(world.fleet, "rater", 1, "bob")
    world.tick()
    with pytest.raises(SameApprover, match=r"already: see  edgeloop rollout status rater  for what it waits for$"):
        approve(world.fleet, "rater", 1, "bob")
    assert (world.status().waits, world.status().next_look) == ("window", of_day(6) + timedelta(days=1))
    world.at = of_day(6) + timedelta(days=1)
    for node in world.nodes.values():
        world.say(node)
    assert world.run().state == "done"
    assert events(world) == [("approve", "bob")]


def test_no_more_nodes_than_allowed_switch_in_an_hour(make: Make) -> None:
    world = make(per_hour=2)
    world.start(NEW)
    for _ in range(30):
        world.tick()
        world.follow()
    assert world.served().count("new") == 2
    assert world.status().waits == "rate"
    world.pass_time(3600)
    world.follow()
    for _ in range(6):
        world.tick()
        world.follow()
    assert world.served().count("new") == 4


def test_a_late_joiner_is_brought_to_what_its_ring_runs(make: Make) -> None:
    world = make()
    world.start(NEW)
    world.run()
    from tests.unit.fleet.rollouts.world import Node

    world.nodes["late"] = Node("late", 1)
    world.follow("late")
    assert world.nodes["late"].serving == NEW


def test_a_ring_that_passed_and_fails_later_is_taken_back_too(make: Make) -> None:
    world = make()
    world.start(NEW)
    for _ in range(2):
        world.tick()
        world.follow("a", "b")
    assert world.status().wave == 1
    world.nodes["b"].cannot = {NEW}
    world.nodes["b"].serving = OLD
    world.follow("b")
    assert world.run().state == "reverted"
    assert world.channel_says() == ["old", "old"]


def test_a_node_that_still_serves_it_keeps_the_revert_open(make: Make) -> None:
    world = make()
    world.start(NEW)
    world.tick()
    world.follow()
    revert(world.fleet, "rater", "ann", "too slow")
    world.tick()
    world.follow("a")
    world.tick()
    assert world.status().state == "reverting"
    assert "1 still serve it: b" in world.status().reason
    world.follow()
    world.tick()
    assert (world.status().state, world.status().reason) == ("reverted", "reverted by ann: too slow")


def test_a_tick_with_nothing_new_writes_nothing_anywhere(make: Make) -> None:
    world = make(batches=[1], soak_seconds=600)
    world.start(NEW)
    for _ in range(8):
        world.tick()
        world.follow()
    [saved] = world.store.open()
    commits = world.channel.commits
    for _ in range(3):
        world.tick()
    assert world.store.open() == [saved]
    assert world.channel.commits == commits


@pytest.mark.parametrize("ends", [False, True])
def test_a_channel_that_fell_back_is_told_again_by_the_next_tick(make: Make, ends: bool) -> None:
    world = make(soak_seconds=0 if ends else 600)
    before = dict(world.channel.records)
    world.start(NEW)
    for _ in range(6):
        world.tick()
        world.follow()
    assert bool(world.store.open()) is not ends
    told = world.channel_says()
    world.channel.records = before
    world.tick()
    assert world.channel_says() == told


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


# --- bad input


@pytest.mark.parametrize(
    ("strategy", "error", "part"),
    [
        ({"rings": {7: {"approve": True}}}, BadStrategy, r"rings names ring 7, rings are \[0, 1\]"),
        ({"target": "kserve", "batches": [1]}, BadStrategy, "rollout.batches .* is for target agent, not kserve"),
        ({"target": "kubeedge", "rings": {0: {"batches": [0.5]}}}, BadStrategy, "rings.0.batches"),
        ({"target": "kubeedge", "per_hour": 5}, BadStrategy, "per_hour"),
        ({"windows": [{"from": "01:00", "to": "02:00", "zone": "Mars/Base"}]}, BadWindow, "Mars/Base"),
        ({"rings": {1: {"windows": [{"from": "01:00", "to": "02:00", "zone": "No"}]}}}, BadWindow, "No"),
    ],
)
def test_a_strategy_that_cannot_be_followed_begins_nothing(
    make: Make, strategy: dict[str, Any], error: type[BadInput], part: str
) -> None:
    world = make(**strategy)
    with pytest.raises(error, match=part) as caught:
        world.start(NEW)
    assert "\n" not in str(caught.value)
    assert world.store.open() == []


def test_a_plan_says_what_would_happen_and_changes_nothing(make: Make) -> None:
    world = make(batches=[1, 0.5], rings={1: {"approve": True, "soak_seconds": 60}})
    before = world.store.newest("rater")
    plan = plan_rollout(world.fleet, world.rings, world.service, "new")
    assert [(r.ring, r.nodes, r.stands, r.batches, r.approve) for r in plan.rings] == [
        (0, 2, OLD, [1, 2], False),
        (1, 4, OLD, [1, 3, 4], True),
    ]
    assert "in 3 batches, up to 1, 3, 4 of them, after a word, soaks 60 s" in plan.text()
    assert (plan.release, plan.former) == (NEW, OLD)
    assert world.store.newest("rater") == before
    with pytest.raises(UnknownVersion, match="no release was made of version '99'"):
        release_named(world.fleet, "rater", "99")


# --- state


def test_of_two_who_decided_on_the_same_state_one_writes(make: Make) -> None:
    world = make()
    world.start(NEW)
    [saved] = world.store.open()
    for expected in (True, False):
        changed = saved.view.model_copy(update={"reason": f"{expected}"})
        assert world.store.save(saved, changed, (), world.at) is expected
    assert world.view().reason == "True"


def test_a_lease_is_free_again_in_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    database = make().fleet.database
    at = of_day(1)
    with lease(database, "x", at) as mine:
        assert mine
        monkeypatch.setattr("edgeloop.fleet.rollouts.lease.os.getpid", lambda: 1)
        for seconds, free in ((0, False), (LEASE.total_seconds() - 1, False), (LEASE.total_seconds(), True)):
            with lease(database, "x", at + timedelta(seconds=seconds)) as other:
                assert other is free


def test_a_rollout_of_before_there_were_states_goes_on(make: Make) -> None:
    world = make()
    values = {"service": "rater", "digest": NEW, "former": OLD, "state": "moving", "wave": 1, "reason": "why"}
    world.fleet.database.insert(rollouts, **values, wave_since=world.at, at=world.at)
    assert world.run().state == "done"
    assert world.channel_says() == ["new", "new"]
    assert world.status().former == OLD


def test_states_are_kept_as_they_were(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path / 'fleet.db'}"
    fleet = FleetStore(url)
    service = regressor(rings=[0], rollout={"windows": [{"from": "01:00", "to": "02:00", "zone": "UTC"}]})
    made = StateStore(fleet.database).begin(freeze(service, NEW, "why", "ann", {0: OLD}, OLD), of_day(3))
    fleet.close()
    again = FleetStore(url)
    [saved] = StateStore(again.database).open()
    assert saved.view == made
    assert [row["name"] for row in again.database.all(_tables())]
    again.close()


def _tables() -> sa.Select[Any]:
    return sa.select(sa.column("name")).select_from(sa.table("sqlite_master"))
