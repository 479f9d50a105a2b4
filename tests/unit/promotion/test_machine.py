"""Any order of aliases, people, rollouts, outages and crashes keeps what must hold of promotions."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgeloop.clients.registry import RegistryUnavailable
from edgeloop.errors import BadInput
from edgeloop.promotion.acts import approve, reject, revert
from edgeloop.promotion.records import CLOSED
from tests.unit.promotion.world import World, release_of
from tests.unit.samples.broken import Crash, Fuse, Guarded

#: What a pass asks of its collaborators, and where it may be cut off.
CALLS = {
    "registry": "alias set_champion clear_champion stamp",
    "promotions": "begin note close left",
    "builder": "build",
    "rehearser": "rehearse",
    "signer": "approve",
    "rollouts": "start stop newest",
}
VERSIONS = st.sampled_from([None, "1", "2", "3"])


class Promoting(RuleBasedStateMachine):
    """One service with a second approval, or without."""

    @initialize(second=st.booleans(), twin=st.booleans())
    def begin(self, second: bool, twin: bool) -> None:
        self.world = World(approvals={"second": second}, twin={"required": twin})
        self.second = second
        self.approved: set[int] = set()
        self.touched = False

    @rule(version=VERSIONS)
    def alias(self, version: str | None) -> None:
        if version is None:
            self.world.registry.clear_champion("rater")
        else:
            self.world.registry.set_champion("rater", version)

    @rule()
    def look(self) -> None:
        self.world.reconcile()

    @rule(calls=st.integers(0, 12))
    def crash(self, calls: int) -> None:
        """A pass that is cut off before its call number ``calls`` to any collaborator."""
        world, fuse = self.world, Fuse(calls)
        kept = world.parts
        guarded = {part: Guarded(getattr(kept, part), fuse, *names.split()) for part, names in CALLS.items()}
        world.parts = type(kept)(**{**vars(kept), **guarded})
        try:
            world.reconcile()
        except Crash:
            pass
        finally:
            world.parts = kept

    @rule()
    def away(self) -> None:
        before = self.world.promotions.history("rater"), self.world.rollouts.state()
        self.world.registry.away = True
        with pytest.raises(RegistryUnavailable):
            self.world.reconcile()
        self.world.registry.away = False
        assert (self.world.promotions.history("rater"), self.world.rollouts.state()) == before

    @rule(outcome=st.sampled_from(["done", "reverted"]))
    @precondition(lambda self: self.world.rollouts.state() == "moving")
    def ends(self, outcome: str) -> None:
        self.world.rollouts.end(outcome)

    @rule(says=st.sampled_from(["pass", "fail", "inconclusive"]))
    def twin(self, says: str) -> None:
        self.world.rehearser.says = says  # type: ignore[assignment]

    @rule(who=st.sampled_from(["alice", "alias"]))
    def approve(self, who: str) -> None:
        now = self.world.promotions.current("rater")
        try:
            approve(self.world.parts, self.world.service, who, "yes")
        except BadInput:
            return
        assert now is not None
        self.approved.add(now.id)

    @rule(away=st.booleans())
    def reject(self, away: bool) -> None:
        self.world.registry.away = away
        try:
            reject(self.world.parts, self.world.service, "bob", "no")
        except BadInput:
            return
        finally:
            self.world.registry.away = False
        assert self.world.rollouts.state() != "moving" or self._newest_release() != self._last_closed_release()

    @rule()
    def revert(self) -> None:
        try:
            revert(self.world.parts, self.world.service, "bob", "back")
        except BadInput:
            return

    def _newest_release(self) -> str | None:
        found = self.world.rollouts.newest("rater")
        return found.release if found else None

    def _last_closed_release(self) -> str | None:
        last = self.world.promotions.last_closed("rater")
        return last.release if last else None

    @invariant()
    def at_most_one_is_open(self) -> None:
        rows = self.world.promotions.history("rater", limit=1000)
        assert sum(row.state not in CLOSED for row in rows) <= 1

    @invariant()
    def nothing_rolls_without_its_word(self) -> None:
        """Where two approvals are asked for, what was begun has them, or was on the fleet before."""
        if not self.second:
            return
        begun = [p for p in self.world.promotions.history("rater", limit=1000) if p.rollout is not None]
        proven: set[str] = set()
        for one in reversed(begun):
            runs_already = one.reason == "every ring runs it"
            assert one.id in self.approved or one.version in proven or runs_already
            proven.add(one.version)

    @invariant()
    def only_what_is_signed_rolls(self) -> None:
        assert set(self.world.rollouts.began) <= set(self.world.signer.signed)

    @invariant()
    def the_ledger_says_everything_once(self) -> None:
        keys = [(r["event"], r["key"]) for r in self.world.fleet.history("rater", limit=1000)]
        assert len(keys) == len(set(keys))

    def teardown(self) -> None:
        """Left alone it settles: what moves is what the alias names, and another look changes nothing."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.reconcile()
        world.reconcile()
        settled = world.promotions.history("rater", limit=1000), world.rollouts.began[:], world.champion()
        world.reconcile()
        assert settled == (world.promotions.history("rater", limit=1000), world.rollouts.began, world.champion())
        now = world.promotions.current("rater")
        assert (now.version if now else None) == world.champion()
        if now is None:
            assert world.rollouts.state() != "moving"
        elif world.rollouts.state() == "moving" and now.state == "released":
            assert self._newest_release() == release_of(now.version)


TestPromoting = Promoting.TestCase
TestPromoting.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
