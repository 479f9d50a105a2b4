"""When the next batch of a ring begins and how far it reaches: approval, window, rate, and places of nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

from edgeloop.fleet.rollouts.facts import RingFacts
from edgeloop.fleet.rollouts.states import RingView, View
from edgeloop.fleet.rollouts.windows import opens
from edgeloop.samples.cohorts import bound, switches

_HOUR = timedelta(hours=1)


def next_batch(view: View, ring: RingView, known: RingFacts | None, at: datetime) -> View:
    """``view`` with the next batch of ``ring`` begun, or with what that waits for."""
    if (waiting := held_up(view, ring, at)) is not None:
        return waiting
    if known is None or known.below != ring.below:
        return view
    return _begun(view, ring, known.names, at)


def held_up(view: View, ring: RingView, at: datetime) -> View | None:
    """``view`` with what ``ring`` waits for before any of its nodes may switch; None when that is nothing."""
    if view.step(ring.ring).approve and not ring.approved_by:
        reason = f"ring {ring.ring} waits for a word: edgeloop rollout approve {view.service} --ring {ring.ring}"
        return view.model_copy(update={"waits": "approval", "reason": reason})
    opening = opens(view.windows(ring.ring), at) if view.windows(ring.ring) else at
    if opening is None:
        reason = f"ring {ring.ring}: no window opens any more: change rollout.windows and start it again"
        return view.model_copy(update={"state": "holding", "waits": "person", "reason": reason})
    if opening > at:
        reason = f"ring {ring.ring} waits for its window at {opening.isoformat(timespec='minutes')}"
        return view.model_copy(update={"waits": "window", "next_look": opening, "reason": reason})
    return None


def _begun(view: View, ring: RingView, names: Sequence[str], at: datetime) -> View:
    touched = sum(switches(view.salt, name, ring.below) for name in names)
    count = reach(view.batches(ring.ring), touched, len(names))
    touches = tuple(one for one in view.touches if at - one[0] < _HOUR)
    if view.strategy.per_hour is not None:
        free = max(0, view.strategy.per_hour - sum(n for _, n in touches))  # the rate may be less than it was
        if not free and count > touched:
            again = min(when for when, _ in touches) + _HOUR
            reason = f"ring {ring.ring} waits: {view.strategy.per_hour} nodes were switched within an hour"
            return view.model_copy(update={"waits": "rate", "next_look": again, "reason": reason})
        count = min(count, touched + free)
        touches = (*touches, (at, count - touched))
    below = max(ring.below, bound(view.salt, names, count))
    begun = {"state": "switching", "below": below, "batch": ring.batch + 1, "since": at, "switched_at": at}
    text = f"ring {ring.ring}: batch {ring.batch + 1} begins, {count} of {len(names)} nodes"
    if view.strategy.target != "agent":  # a cluster runs a ring as one, and counts its nodes itself
        text = f"ring {ring.ring} switches"
    return view.with_ring(ring.model_copy(update=begun), touches=touches, reason=text)


def reach(batches: Sequence[int | float], touched: int, nodes: int) -> int:
    """How many of ``nodes`` are to switch after the next batch, when ``touched`` of them were told so before.

    A batch is a count, or a share of the ring rounded up; what they leave over is a last one.
    """
    total = 0
    for batch in batches:
        total += batch if isinstance(batch, int) else math.ceil(batch * nodes)
        if total > touched:
            return min(total, nodes)
    return nodes
