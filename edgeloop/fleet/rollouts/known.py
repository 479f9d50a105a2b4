"""Collects what a decision is made of, for the rings that matter now."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from edgeloop.fleet.rollouts.effects import Applied, Effects
from edgeloop.fleet.rollouts.evidence import RingEvidence
from edgeloop.fleet.rollouts.facts import Facts, RingFacts
from edgeloop.fleet.rollouts.roster import Roster
from edgeloop.fleet.rollouts.states import RingView, View, touched_rings
from edgeloop.fleet.targets.protocol import Observed
from edgeloop.samples.cohorts import EVERYONE

_NEVER = datetime.max.replace(tzinfo=UTC)


def gather(
    view: View, roster: Roster, effects: Effects, applied: Applied, at: datetime, *, complete: bool, newer: bool
) -> Facts:
    """What is known of ``view``, its wishes having been applied."""
    facts = Facts(applied=applied.is_done, refused=applied.refused, complete=complete, newer=newer)
    if view.state == "reverting":
        is_channel = view.strategy.target == "agent"
        return replace(facts, stuck=_stuck(view, roster, at) if is_channel else _not_back(view, effects))
    looked_at = [ring for ring in view.rings if ring.state != "waiting"]
    return replace(facts, rings={ring.ring: _of_ring(view, ring, roster, effects, at) for ring in looked_at})


def _of_ring(view: View, ring: RingView, roster: Roster, effects: Effects, at: datetime) -> RingFacts:
    if view.strategy.target != "agent":
        observed = effects.observe(view, ring.ring)
        said = _said(view, ring, roster, EVERYONE, at)
        return RingFacts(_of_pods(observed, said) if observed else RingEvidence(), ring.below)
    # While it stages nobody is told to switch: what is asked is whether all could.
    below = EVERYONE if ring.state == "staging" else ring.below
    names = () if below == EVERYONE and ring.state != "staging" else _names(view, ring, roster, at)
    return RingFacts(_said(view, ring, roster, below, at), ring.below, names)


def _said(view: View, ring: RingView, roster: Roster, below: str, at: datetime) -> RingEvidence:
    """What those who report say of the release."""
    # While it stages none was given the release, so none can have left it.
    batch_since = _NEVER if ring.state == "staging" else ring.switched_at
    about = view.service, ring.ring, view.release, ring.stands, view.salt, below, view.strategy.thresholds, at
    return roster.evidence(*about, since=ring.begun_at, batch_since=batch_since)


def _names(view: View, ring: RingView, roster: Roster, at: datetime) -> tuple[str, ...]:
    """The nodes that a batch is counted in: those that are there, so that it shows something; if none is, all."""
    return tuple(roster.names(view.service, ring.ring, at) or roster.names(view.service, ring.ring))


def _of_pods(seen: Observed, said: RingEvidence) -> RingEvidence:
    """How many serve is the cluster's to say; what they answer is theirs, where they report."""
    online = seen.nodes - seen.offline
    return replace(
        said,
        nodes=seen.nodes,
        online=online,
        touched=seen.nodes,
        touched_online=online,
        staged=seen.staged,
        switched=seen.switched,
        failed=seen.failed,
        failed_away=0,
        first_failure=seen.reason,
        lost=0,
    )


def _stuck(view: View, roster: Roster, at: datetime) -> tuple[str, ...]:
    """Online nodes of the rollout's rings that serve the release still; other rings are none of its business."""
    serving = set(roster.serving(view.service, view.release, at))
    if not serving:
        return ()
    return tuple(sorted(serving & {name for ring in view.rings for name in roster.names(view.service, ring.ring)}))


def _not_back(view: View, effects: Effects) -> tuple[str, ...]:
    """Rings of a cluster of which nodes that are there neither run the former release nor fail with it."""
    seen = {ring.ring: effects.observe(view, ring.ring) for ring in touched_rings(view)}
    return tuple(
        f"ring {ring} ({one.switched} of {one.nodes - one.offline} are back)"
        for ring, one in seen.items()
        if one is not None and one.switched + one.failed < one.nodes - one.offline
    )
