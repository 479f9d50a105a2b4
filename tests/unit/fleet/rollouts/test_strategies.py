"""Strategies are followed, and one that cannot be followed is refused before anything changes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from edgeloop.errors import BadInput
from edgeloop.fleet.rollout import abort, approve, revert
from edgeloop.fleet.rollouts.batches import next_batch, reach
from edgeloop.fleet.rollouts.checks import BadStrategy
from edgeloop.fleet.rollouts.commands import SameApprover, UnknownRing
from edgeloop.fleet.rollouts.evidence import RingEvidence
from edgeloop.fleet.rollouts.facts import RingFacts
from edgeloop.fleet.rollouts.plan import UnknownVersion, plan_rollout, release_named
from edgeloop.fleet.rollouts.windows import BadWindow
from edgeloop.samples.cohorts import EVERYONE, NOBODY
from tests.unit.fleet.rollouts.strategies import Make, events, make
from tests.unit.fleet.rollouts.world import NEW, NEXT, OLD, of_day

__all__ = ["make"]


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


@pytest.mark.parametrize("ends", [None, abort])
def test_a_newer_release_does_not_begin_the_hour_again(make: Make, ends: Callable[..., Any] | None) -> None:
    """Going back does not wait for it."""
    world = make(per_hour=2)
    world.start(NEW)
    for _ in range(9):
        world.tick()
        world.follow()
    assert (world.served(), world.status().waits) == (["new"] * 2 + ["old"] * 4, "rate")
    if ends is not None:
        ends(world.fleet, "rater", "ann", "why")
    world.start(NEXT)
    for _ in range(9):
        world.tick()
        world.follow()
    assert world.served().count("next") == 0
    assert (world.status().release, world.status().waits) == (NEXT, "rate")
    world.pass_time(3600)
    world.follow()
    for _ in range(9):
        world.tick()
        world.follow()
    assert world.served().count("next") == 2
    revert(world.fleet, "rater", "ann", "why")
    world.tick()
    world.follow()
    assert world.served() == ["old"] * 6


def test_a_ring_whose_nodes_all_switched_waits_for_no_rate_that_others_used_up(make: Make) -> None:
    world = make(per_hour=1)
    world.start(NEW)
    view = world.view().model_copy(update={"touches": ((world.at, 5),)})
    after = next_batch(view, view.rings[0], RingFacts(RingEvidence(), NOBODY), world.at)
    assert (after.rings[0].below, after.touches) == (EVERYONE, ((world.at, 5), (world.at, 0)))


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


# --- before anything begins


@pytest.mark.parametrize(
    ("strategy", "error", "part"),
    [
        ({"rings": {7: {"approve": True}}}, BadStrategy, r"rings names ring 7, rings are \[0, 1\]"),
        ({"target": "kserve", "batches": [1]}, BadStrategy, "rollout.batches .* is for target agent, not kserve"),
        ({"target": "kubeedge", "rings": {0: {"batches": [0.5]}}}, BadStrategy, "rings.0.batches"),
        ({"target": "kubeedge", "per_hour": 5}, BadStrategy, "per_hour"),
        ({"target": "kubeedge", "thresholds": {"require_accuracy": True}}, BadStrategy, "nobody labels what pods of"),
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
    old, new = (release.removeprefix("sha256:")[:12] for release in (OLD, NEW))
    assert plan.text().startswith(f"rater: version old ({old}) -> version new ({new}) on agent\n")
    assert world.store.newest("rater") == before
    with pytest.raises(UnknownVersion, match="no release was made of version '99'"):
        release_named(world.fleet, "rater", "99")
