"""Any order of ticks, reports, crashes, offline spells, joins and commands keeps what must hold of a rollout."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, cast
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgeloop.errors import BadInput
from edgeloop.fleet.channel import Rings
from edgeloop.fleet.rollout import abort, approve, pause, resume, revert, rollback, stop
from edgeloop.fleet.rollouts import tick as ticking
from edgeloop.fleet.rollouts.decide import Decision, decide
from edgeloop.fleet.rollouts.facts import Facts, waited
from edgeloop.fleet.rollouts.moves import move_node
from edgeloop.fleet.rollouts.states import ENDED, TERMINAL, View, desired
from edgeloop.fleet.rollouts.windows import opens
from edgeloop.samples.cohorts import NOBODY, switches
from tests.unit.fleet.rollouts.world import LAST, NEW, NEXT, OLD, Hooked, Wired, World, of_day
from tests.unit.samples.broken import Crash, Fuse, Guarded
from tests.unit.samples.make import regressor

RINGS = [0, 1, 2]
NODES = {"a": 0, "b": 0, "c": 1, "d": 1, "e": 1, "f": 2}
NAMES = [*NODES, "late"]
COMMON = {"soak_seconds": 0, "patience_seconds": 300, "absence_seconds": 20}
STRATEGIES: list[dict[str, Any]] = [
    {},
    {"batches": [1, 0.5], "soak_seconds": 30},
    {"batches": [1], "rings": {1: {"approve": True, "batches": [1.0]}}},
    {"batches": [0.5], "per_hour": 2, "windows": [{"from": "06:00", "to": "18:00", "zone": "UTC"}]},
]
names = st.sampled_from(NAMES)
releases = st.sampled_from([NEW, NEXT, LAST])
WORDS: list[Callable[..., Any] | None] = [None, pause, abort, revert]


def checked(view: View, facts: Facts, at: datetime) -> Decision:
    """Decide, and look at what every decision must be."""
    decision = decide(view, facts, at)
    assert decide(view, facts, at) == decision
    twice = decide(decision.view, facts, at).view
    assert twice == decision.view, [one for one in zip(twice, decision.view, strict=True) if one[0] != one[1]]
    for before, after in zip(view.rings, decision.view.rings, strict=True):
        assert after.below >= before.below
        if after.batch > before.batch and not view.everywhere:
            assert not view.paused_by
            assert after.approved_by or not view.step(after.ring).approve
            assert not view.windows(after.ring) or opens(view.windows(after.ring), at) == at
    if view.state == "reverting" and decision.view.state == "reverted":
        assert facts.applied and facts.stuck is not None and (facts.newer or not facts.stuck), facts
    if view.state != "superseded" and decision.view.state == "superseded":
        assert is_between_rings(decision.view, facts, at) or view.state == "holding", view
    return decision


def is_between_rings(view: View, facts: Facts, at: datetime) -> bool:
    """Whether none of the ring's nodes was told to switch, or it would have been held."""
    is_late = waited(view.current, at) > timedelta(seconds=view.strategy.patience_seconds)
    return view.current.state in {"waiting", "staging", "staged"} or bool(facts.refused) or is_late


class Rollouts(RuleBasedStateMachine):
    """One service on a fleet that misbehaves."""

    @initialize(strategy=st.sampled_from(STRATEGIES))
    def begin(self, strategy: dict[str, Any]) -> None:
        self.patched = patch.object(ticking, "decide", checked)
        self.patched.start()
        self.world = World(regressor(rings=RINGS, rollout={**COMMON}), NODES)
        self.world.at = of_day(7)
        self.world.delivered(OLD)
        self.world.service = regressor(rings=RINGS, rollout={**COMMON, **strategy})
        self.ended: dict[int, View] = {}
        self.turns: dict[int, int] = {}
        self.sequences: dict[int, int] = {}
        self.is_settled = False

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.fair()
        finally:
            self.patched.stop()
            self.world.close()

    # --- what happens

    @rule(seconds=st.sampled_from([0, 1, 10, 40, 400, 3600]))
    def tick(self, seconds: int) -> None:
        self.world.tick(seconds)
        self.is_settled = True

    @rule(rounds=st.integers(1, 6), seconds=st.sampled_from([1, 31]))
    def all_goes_well_for_a_while(self, rounds: int, seconds: int) -> None:
        for _ in range(rounds):
            self.world.tick(seconds)
            self.world.follow()
        self.is_settled = True

    @rule(release=releases, who=st.lists(names, max_size=2), rounds=st.integers(1, 5))
    def begin_and_go_on(self, release: str, who: list[str], rounds: int) -> None:
        """A rollout that some nodes lag behind, and whoever acts next finds it in the middle."""
        self.world.start(release, again=True)
        for _ in range(rounds):
            self.world.tick(5)
            self.world.follow(*who)
            self.one_on_its_way_and_one_behind_it()

    @rule(after=st.integers(0, 12))
    def tick_that_is_cut_off(self, after: int) -> None:
        fuse = Fuse(after)
        parts: dict[str, Any] = {
            "fleet": Wired(self.world.fleet, fuse),
            "channel": Guarded(self.world.channel, fuse, "point_many"),
            "broker": Guarded(self.world.broker, fuse, "publish", "gather"),
        }
        self.is_settled = False
        try:
            self.world.tick(1, **parts)
        except Crash:
            return

    @rule(
        after=st.integers(0, 8), seconds=st.sampled_from([0, 400]), word=st.sampled_from([None, pause, abort, revert])
    )
    def another_acts_within_a_tick(self, after: int, seconds: int, word: Callable[..., Any] | None) -> None:
        """Another process ticks or speaks while this one stands before one of its writes or effects."""
        left = [after]

        def other() -> None:
            left[0] -= 1
            if left[0] != -1:
                return
            if word is None:
                self.world.tick(seconds)
                self.world.follow()
            else:
                self.try_to(partial(word, self.world.fleet, "rater", "ann", "why"))
            self.what_ended_stays_as_it_is()

        self.is_settled = False
        fleet: Any = Hooked(self.world.fleet, other)
        fleet.database = Hooked(self.world.fleet.database, other, "writing")
        self.world.tick(1, fleet=fleet, channel=Hooked(self.world.channel, other, "point_many"))

    @rule(who=st.lists(names, max_size=3))
    def nodes_follow(self, who: list[str]) -> None:
        self.world.follow(*who)

    @rule(name=names)
    def node_goes(self, name: str) -> None:
        if name in self.world.nodes:
            self.world.switch_off(name)

    @rule(name=names)
    def node_comes(self, name: str) -> None:
        if name in self.world.nodes:
            self.world.nodes[name].online = True
            self.world.follow(name)

    @rule(name=names, release=releases)
    def node_will_fail(self, name: str, release: str) -> None:
        if name in self.world.nodes:
            self.world.nodes[name].cannot.add(release)

    @rule(ring=st.sampled_from(RINGS))
    def node_joins(self, ring: int) -> None:
        from tests.unit.fleet.rollouts.world import Node

        if "late" not in self.world.nodes:
            self.world.nodes["late"] = Node("late", ring)
            self.world.follow("late")

    @rule(name=names, ring=st.sampled_from(RINGS))
    def node_moves(self, name: str, ring: int) -> None:
        node = self.world.nodes.get(name)
        if node is not None and node.online:
            node.ring, node.has_moved = ring, True
            self.world.follow(name)

    @rule(name=names, ring=st.sampled_from([*RINGS, None]), at_once=st.booleans())
    def person_moves_a_node(self, name: str, ring: int | None, at_once: bool) -> None:
        world, rings = self.world, cast(Rings, self.world.channel)
        services = {"rater": world.service}
        self.try_to(lambda: move_node(world.fleet, rings, services, name, ring, "ann", "", world.at, at_once=at_once))

    @rule(seconds=st.sampled_from([5, 600]))
    def clock_is_set_back(self, seconds: int) -> None:
        self.world.pass_time(-seconds)

    # --- what people say

    @rule(release=releases, again=st.booleans())
    def promote(self, release: str, again: bool) -> None:
        self.world.start(release, again=again)

    @rule(word=st.sampled_from([pause, resume, abort, revert, stop]))
    def say(self, word: Callable[..., Any]) -> None:
        self.try_to(lambda: word(self.world.fleet, "rater", "ann", "why"))

    @rule(ring=st.sampled_from(RINGS))
    def approve(self, ring: int) -> None:
        self.try_to(lambda: approve(self.world.fleet, "rater", ring, "bob"))

    @rule()
    @precondition(lambda self: self.world.fleet is not None)
    def roll_back(self) -> None:
        channel: Any = self.world.channel
        self.try_to(lambda: rollback(self.world.fleet, channel, self.world.service, "ann", "why"))

    def try_to(self, act: Callable[[], Any]) -> None:
        self.is_settled = False
        try:
            act()
        except BadInput as error:
            assert "\n" not in str(error)

    # --- what must hold

    @invariant()
    def one_on_its_way_and_one_behind_it(self) -> None:
        opened = [saved.view for saved in self.world.store.open()]
        assert sum(view.state != "queued" for view in opened) <= 1
        assert sum(view.state == "queued" for view in opened) <= 1

    @invariant()
    def no_ring_before_the_one_before_it_passed(self) -> None:
        for saved in self.world.store.open():
            rings = saved.view.rings
            for number, ring in enumerate(rings):
                if ring.below != NOBODY and number and not saved.view.everywhere:
                    assert all(one.state in {*ENDED, "failed"} for one in rings[:number]), saved.view
                    assert rings[0].state in {"passed", "failed"}

    @invariant()
    def what_ended_stays_as_it_is(self) -> None:
        found = {view.rollout: view for view in self.world.store.ended("rater")}
        self.ended = found | self.ended
        assert self.ended == found

    @invariant()
    def turns_and_sequences_only_grow(self) -> None:
        for saved in self.world.store.open():
            assert saved.turn >= self.turns.get(saved.view.rollout, 0)
            self.turns[saved.view.rollout] = saved.turn
        for ring, record in self.world.channel.records.items():
            assert record.sequence >= self.sequences.get(ring, 0)
            self.sequences[ring] = record.sequence

    @invariant()
    def the_channel_says_what_the_last_tick_wished(self) -> None:
        if not self.is_settled:
            return
        self.is_settled = False
        [saved] = self.world.store.standing("rater")
        wishes = desired(saved.view)
        for ring, to in wishes.items():
            record = self.world.channel.records[ring]
            assert (record.release, record.next) == (to.release, to.next)
            assert to.next is None or to.next.release == saved.view.release

    @invariant()
    def nobody_beyond_its_bound_was_touched(self) -> None:
        for saved in self.world.store.open():
            view = saved.view
            if view.state != "moving" or view.former == view.release:
                continue
            for node in self.world.nodes.values():
                ring = next(one for one in view.rings if one.ring == node.ring)
                if node.serving == view.release and not node.has_moved and ring.stands not in {None, view.release}:
                    assert switches(view.salt, node.name, ring.below) or self.ran_before(view), (node, view)

    def ran_before(self, view: View) -> bool:
        """Whether nodes may serve the release from an earlier rollout of it that was left unfinished."""
        return any(one.release == view.release for one in self.world.store.ended("rater"))

    # --- in the end

    def fair(self) -> None:
        """With all nodes there, all words said and time enough, it ends, or holds and says why."""
        world = self.world
        for node in world.nodes.values():
            node.online = True
        until = world.at + timedelta(days=4)
        quiet = 0
        while quiet < 3 and world.at < until:
            before = world.store.open()
            opened = [s.view for s in world.store.open() if s.view.state != "queued"]
            for view in opened:
                if view.paused_by:
                    resume(world.fleet, "rater", "ann")
                for ring in view.rings:
                    if view.waits == "approval" and not ring.approved_by:
                        self.try_to(partial(approve, world.fleet, "rater", ring.ring, "bob"))
            world.tick(1801)
            world.follow()
            quiet = quiet + 1 if world.store.open() == before and not self.waits_for_time() else 0
            self.what_ended_stays_as_it_is()
            self.no_ring_before_the_one_before_it_passed()
        status = world.status()
        assert world.at < until, status
        assert status.state in TERMINAL | {"holding"}, status
        assert status.reason
        self.taken_back_everywhere()

    def waits_for_time(self) -> bool:
        return any(saved.view.waits in {"window", "rate", "soak"} for saved in self.world.store.open())

    def taken_back_everywhere(self) -> None:
        [saved] = self.world.store.standing("rater")
        view = saved.view
        if view.state != "reverted" or not view.former or view.former == view.release:
            return
        for ring in view.rings:
            assert self.world.channel.records[ring.ring].release == view.former
        for node in self.world.nodes.values():
            assert node.serving != view.release, (node, view)


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=(Phase.generate,),  # a failure is told as it was found: making it smaller takes minutes
)
