"""Makes rings be like what rollouts wish: a reconciliation, not a command, so that what was cut off heals.

Whoever publishes an old wish late is put right by the next tick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeloop.errors import BadInput
from edgeloop.fleet.channel import NotApproved, Pointing
from edgeloop.fleet.rollouts.states import ACTIVE, View, desired
from edgeloop.fleet.targets.agent import AgentTarget
from edgeloop.fleet.targets.owned import outcome
from edgeloop.fleet.targets.protocol import Next, Observed, Outcome, ReleaseRef, Sited, Target, Wave
from edgeloop.samples.cohorts import NOBODY

#: What is known of a release of a service by its digest: its version and its images.
Refs = Callable[[str, str], ReleaseRef]
Targets = Callable[[str], Target]


class NoTarget(BadInput):
    """This process cannot reach the target that a service's strategy names."""


@dataclass(frozen=True)
class Action:
    """One call of a target, for one ring at one site."""

    name: str
    """``<service> ring <n> on <target>``, and ``at <site>`` where there are several."""
    call: Callable[[], Outcome]


#: Does all actions, in any order or at once, and says what came of each.
Perform = Callable[[Sequence[Action]], Sequence[Outcome]]


def in_turn(actions: Sequence[Action]) -> list[Outcome]:
    """One action after the other."""
    return [action.call() for action in actions]


@dataclass(frozen=True)
class Applied:
    """What became of the wishes of one rollout."""

    is_done: bool
    refused: str = ""


class Effects:
    """Brings wishes to the target of each rollout."""

    def __init__(self, agent: AgentTarget, targets: Targets, refs: Refs, perform: Perform) -> None:
        self._agent = agent
        self._targets = targets
        self._refs = refs
        self._perform = perform

    def apply(self, view: View) -> Applied:
        """Let the rings be like ``view`` wishes; for the channel one commit, none when nothing changes."""
        wishes = desired(view)
        if view.strategy.target == "agent":
            try:
                self._agent.point(view.service, wishes)
            except NotApproved as error:
                return Applied(False, str(error))
            return Applied(True)
        return self._on_target(view, wishes)

    def _on_target(self, view: View, wishes: dict[int, Pointing]) -> Applied:
        target = self._targets(view.strategy.target)
        if view.state in {"moving", "holding"}:
            self._agent.refuse_unapproved(view.service, view.release)
        waves = [self.wave(view, ring, to) for ring, to in wishes.items()]
        if refused := self._refused_at_a_site(target, view, waves):
            return Applied(False, refused)
        asked = [(wave.ring, name, one, wave) for wave in waves for name, one in _parts(target, wave)]
        # What has ended is only kept as it is: that is nothing to show anybody.
        perform = self._perform if view.state in ACTIVE else in_turn
        outcomes = perform([_action(name, one, view, wave) for _, name, one, wave in asked])
        by_ring: dict[int, list[Outcome]] = {}
        for (ring, *_), found in zip(asked, outcomes, strict=True):
            by_ring.setdefault(ring, []).append(found)
        rings = [_together(some) for some in by_ring.values()]
        reason = next((one.reason for one in rings if one.state == "refused"), "")
        return Applied(all(one.state == "done" for one in rings), reason)

    def _refused_at_a_site(self, target: Target, view: View, waves: Sequence[Wave]) -> str:
        """Why a site of the ring that moves would refuse: then none of them is changed. Going back is not held up."""
        now = next((wave for wave in waves if wave.ring == view.current.ring), None)
        if now is None or view.state not in {"moving", "holding"} or not isinstance(target, Sited):
            return ""
        sites = _parts(target, now)
        if len(sites) < 2:
            return ""
        outcomes = self._perform([Action(f"{name}: check", _check(one, now)) for name, one in sites])
        return next((one.reason for one in outcomes if one.state == "refused"), "")

    def wave(self, view: View, ring: int, to: Pointing) -> Wave:
        """What ``ring`` should be like, as targets are told."""
        coming = None
        if to.next is not None:
            coming = Next(self._refs(view.service, to.next.release), to.next.salt, to.next.below)
        nodes = next((one.nodes for one in view.rings if one.ring == ring), 0)
        return Wave(view.service, ring, self._refs(view.service, to.release), coming, nodes)

    def observe(self, view: View, ring: int) -> Observed | None:
        """How far a ring is by what its target says; None where the nodes' reports say it."""
        to = desired(view).get(ring)
        if view.strategy.target == "agent" or to is None:
            return None
        return self._targets(view.strategy.target).observe(self.wave(view, ring, to))


def _parts(target: Target, wave: Wave) -> list[tuple[str, Target]]:
    """The target, or where a ring is several sites each of them, with a name for people."""
    name = f"{wave.service} ring {wave.ring} on {target.name}"
    sites = target.sites(wave.ring) if isinstance(target, Sited) else ()
    if not isinstance(target, Sited) or not sites:
        return [(name, target)]
    return [(f"{name} at {site}", target.at(site)) for site in sites]


def _action(name: str, target: Target, view: View, wave: Wave) -> Action:
    verb = target.switch
    if view.state in {"reverting", "reverted"}:
        verb = target.revert
    elif wave.next is not None and wave.next.below == NOBODY:
        verb = target.stage
    return Action(name, lambda: verb(wave))


def _check(target: Target, wave: Wave) -> Callable[[], Outcome]:
    def plan() -> int:
        target.plan(wave)
        return 0

    return lambda: outcome(plan)


def _together(outcomes: Sequence[Outcome]) -> Outcome:
    """Of a ring's sites: a refusal counts, a site that is away does not while another is there."""
    refused = next((one for one in outcomes if one.state == "refused"), None)
    if refused is not None:
        return refused
    return outcomes[0] if all(one.state == "later" for one in outcomes) else Outcome("done")
