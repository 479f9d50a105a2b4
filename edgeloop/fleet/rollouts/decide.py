"""What a rollout does next: a function of where it stands, what is known and the time; the same again changes nothing.

Nothing here reads or writes. Failures are acted on whatever else holds the rollout; all else waits its turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from edgeloop.fleet.rollouts.batches import held_up, next_batch
from edgeloop.fleet.rollouts.facts import Facts, RingFacts, waited
from edgeloop.fleet.rollouts.states import ACTIVE, ENDED, TERMINAL, RingView, View, touched_rings
from edgeloop.fleet.rollouts.verdict import Verdict, judge_ring
from edgeloop.samples.cohorts import EVERYONE


@dataclass(frozen=True)
class Event:
    """A row for the ledger: what happened to a rollout that people will ask about."""

    event: str
    """At most 16 letters."""
    verdict: str
    reason: str
    who: str = "rollout"
    back: bool = False
    """Whether the service goes from the release to the former, and not the other way."""


@dataclass(frozen=True)
class Decision:
    """What a rollout becomes."""

    view: View
    events: tuple[Event, ...] = ()


def decide(view: View, facts: Facts, at: datetime) -> Decision:
    """What becomes of ``view``; rollouts that ended or wait for their turn stay as they are."""
    if view.state not in ACTIVE:
        return Decision(view)
    view = _until_now(view, at)
    if view.state == "reverting":
        return Decision(_going_back(view, facts, at))
    seen = _counted(view, facts)
    verdicts = {
        ring.ring: judge_ring(known.evidence, view.strategy.thresholds, waited(ring, at))
        for ring, known in _judged(seen, facts)
    }
    failing = next((ring for ring in seen.rings if _fails(verdicts, ring)), None)
    if failing and not view.everywhere:
        failed = seen.with_ring(failing.model_copy(update={"state": "failed"}))
        return take_back(failed, verdicts[failing.ring].reason, at)
    after = _moved(seen, facts, verdicts, at)
    return Decision(after, _events(view, after))


def _until_now(view: View, at: datetime) -> View:
    """What happened in the future did so by a clock that was wrong: nothing waits until then."""
    for ring in view.rings:
        moments = {name: getattr(ring, name) for name in ("since", "begun_at", "switched_at")}
        if late := {name: at for name, when in moments.items() if when is not None and when > at}:
            view = view.with_ring(_changed(ring, **late))
    changes: dict[str, Any] = {}
    if any(when > at for when, _ in view.touches):
        changes["touches"] = tuple((min(when, at), count) for when, count in view.touches)
    if view.back_at is not None and view.back_at > at:
        changes["back_at"] = at
    return view.model_copy(update=changes)


def take_back(view: View, cause: str, at: datetime, who: str = "rollout") -> Decision:
    """Every ring goes back to the former release; with none there is nothing to go back to, and that was it."""
    state = "reverting" if view.former else "reverted"
    is_kept = not view.former and touched_rings(view)
    reason = f"{cause}; there is no good release before it, so rings that have it keep it" if is_kept else cause
    back = {"state": state, "cause": cause, "reason": reason, "waits": "", "next_look": None, "paused_by": ""}
    return Decision(view.model_copy(update=back | {"back_at": at}), (Event("revert", "fail", cause, who, back=True),))


def _going_back(view: View, facts: Facts, at: datetime) -> View:
    """``reverted`` when every ring is told so and no node that is there serves the release any more.

    With a newer release waiting that is not waited for longer than ``patience_seconds``: nodes that do not go back are
    told so still, and neither one that cannot nor a place that refuses holds everybody up.
    """
    is_over = at - (view.back_at or at) > timedelta(seconds=view.strategy.patience_seconds)
    gives_way = {"state": "reverted"} if facts.newer and is_over else {}
    if facts.refused:
        return view.model_copy(update={"reason": f"{view.cause}; going back is refused: {facts.refused}"} | gives_way)
    if facts.stuck:
        names = ", ".join(facts.stuck[:5]) + (", …" if len(facts.stuck) > 5 else "")
        reason = f"{view.cause}; {len(facts.stuck)} still serve it: {names}"
        return view.model_copy(update={"reason": reason} | (gives_way if facts.applied else {}))
    if facts.stuck is None or not facts.applied or not facts.complete:
        return view
    return view.model_copy(update={"state": "reverted", "reason": view.cause})


def _judged(view: View, facts: Facts) -> list[tuple[RingView, RingFacts]]:
    """Rings whose facts are of what is wished of them now, with those facts."""
    known = ((ring, facts.rings.get(ring.ring)) for ring in view.rings if ring.state not in {"waiting", "staged"})
    return [(ring, one) for ring, one in known if one is not None and one.below == ring.below]


def _counted(view: View, facts: Facts) -> View:
    for ring, known in _judged(view, facts):
        e = known.evidence
        counts = {"nodes": e.nodes, "online": e.online, "switched": e.switched, "failed": e.failed}
        view = view.with_ring(ring.model_copy(update=counts))
    return view


def _fails(verdicts: Mapping[int, Verdict], ring: RingView) -> bool:
    return ring.ring in verdicts and verdicts[ring.ring].outcome == "fail"


def _moved(view: View, facts: Facts, verdicts: Mapping[int, Verdict], at: datetime) -> View:
    """As far as what is known carries; a newer release takes over between two rings, unless a person holds this one."""
    gives_way = facts.newer and not view.paused_by
    if gives_way and _at_boundary(view):
        return _superseded(view)
    after = _forward(view, facts, verdicts, at)
    return _superseded(after) if gives_way and _at_boundary(after) else after


def _forward(view: View, facts: Facts, verdicts: Mapping[int, Verdict], at: datetime) -> View:
    """One step after the other."""
    if facts.refused:
        return _hold(view, facts.refused)
    if view.paused_by:
        return view.model_copy(update={"waits": "pause", "next_look": None})
    view = view.model_copy(update={"state": "moving", "waits": "", "next_look": None})
    if view.everywhere:
        return _all_at_once(view, facts, verdicts, at)
    while True:
        after = _step(view, facts, verdicts, at)
        is_between = facts.newer and after.current.state == "waiting"
        if after == view or after.state != "moving" or is_between:
            return after
        view = after


def _at_boundary(view: View) -> bool:
    """Between two rings, or where it would stay for ever."""
    between = view.state == "moving" and view.current.state in {"waiting", "staging", "staged"}
    return between or view.state == "holding"


def _superseded(view: View) -> View:
    done = {"state": "superseded", "reason": "a newer release takes its place", "waits": "", "next_look": None}
    return view.model_copy(update=done)


def _hold(view: View, reason: str) -> View:
    return view.model_copy(update={"state": "holding", "reason": reason, "waits": "person", "next_look": None})


def _step(view: View, facts: Facts, verdicts: Mapping[int, Verdict], at: datetime) -> View:
    ring = view.current
    if ring.state in ENDED:
        return view.model_copy(update={"state": "done"})
    if ring.state == "waiting":
        return _begin(view, ring, at)
    known = facts.rings.get(ring.ring)
    if ring.state == "staged":
        return next_batch(view, ring, known, at)
    if known is None or known.below != ring.below:
        return view
    if ring.state == "staging":
        return _staged(view, ring, known, facts.complete, at)
    return _switched(view, ring, known, verdicts[ring.ring], facts.complete, at)


def _begin(view: View, ring: RingView, at: datetime) -> View:
    if view.is_direct(ring):
        return held_up(view, ring, at) or _begin_whole(view, ring, at)
    return view.with_ring(_changed(ring, state="staging", since=at, begun_at=at), reason=f"ring {ring.ring} stages it")


def _begin_whole(view: View, ring: RingView, at: datetime) -> View:
    begun = _changed(ring, state="switching", below=EVERYONE, batch=1, since=at, begun_at=at, switched_at=at)
    return view.with_ring(begun)


def _staged(view: View, ring: RingView, known: RingFacts, complete: bool, at: datetime) -> View:
    """A ring is staged when the quorum of its online nodes is; a ring without any has nobody to wait for."""
    e = known.evidence
    if e.online and e.staged >= view.strategy.thresholds.quorum * e.online and e.complete and complete:
        return view.with_ring(_changed(ring, state="staged", since=at))
    if _is_absent(view, ring, known, complete, at):
        return view.with_ring(_changed(ring, state="staged", since=at))
    return _patient(view, ring, f"{e.staged} of {e.online} online nodes have staged it", at)


def _switched(view: View, ring: RingView, known: RingFacts, verdict: Verdict, complete: bool, at: datetime) -> View:
    e = known.evidence
    if _is_absent(view, ring, known, complete, at):
        reason = f"ring {ring.ring}: no node of the ring is online; they catch up when they return"
        ended = _changed(ring, state="skipped", below=EVERYONE, ended_at=at)
        return _ended(view.with_ring(ended, reason=reason))
    if ring.below != EVERYONE and not e.touched_online and waited(ring, at) > _absence(view):
        return next_batch(view, ring, known, at)  # a batch that is away is caught up when it returns
    if verdict.outcome != "pass" or not complete:
        return _patient(view, ring, _open_checks(verdict), at)
    if ring.below != EVERYONE:
        return next_batch(view, ring, known, at)
    return _soaked(view, ring, verdict, at)


def _open_checks(verdict: Verdict) -> str:
    """What is waited for. Without how long: a reason that changes at every look would be written at every look."""
    texts = [check.text for check in verdict.checks if check.required and check.outcome == "inconclusive"]
    return "; ".join(texts) or "the broker did not tell all that it keeps"


def _soaked(view: View, ring: RingView, verdict: Verdict, at: datetime) -> View:
    until = (ring.switched_at or at) + timedelta(seconds=view.soak_seconds(ring.ring))
    if at < until:
        reason = f"ring {ring.ring} soaks: {verdict.reason}"
        return view.with_ring(_changed(ring, state="soaking"), reason=reason, waits="soak", next_look=until)
    passed = _changed(ring, state="passed", ended_at=at)
    return _ended(view.with_ring(passed, reason=f"ring {ring.ring}: {verdict.reason}"))


def _ended(view: View) -> View:
    """``done`` after the last ring."""
    return view.model_copy(update={"state": "done"}) if all(r.state in ENDED for r in view.rings) else view


def _is_absent(view: View, ring: RingView, known: RingFacts, complete: bool, at: datetime) -> bool:
    """Whether a ring has no node online for so long that it is gone past. Never before one ring has passed."""
    e = known.evidence
    has_passed = any(one.state == "passed" for one in view.rings)
    return has_passed and not e.online and e.complete and complete and waited(ring, at) > _absence(view)


def _absence(view: View) -> timedelta:
    return timedelta(seconds=view.strategy.absence_seconds)


def _patient(view: View, ring: RingView, reason: str, at: datetime) -> View:
    text = f"ring {ring.ring}: {reason}"
    if waited(ring, at) <= timedelta(seconds=view.strategy.patience_seconds):
        return view.model_copy(update={"reason": text})
    return _hold(view, text)


def _all_at_once(view: View, facts: Facts, verdicts: Mapping[int, Verdict], at: datetime) -> View:
    """All rings go back to what was good before: none waits for another, and nothing takes them away again."""
    for ring in view.rings:
        if ring.state == "waiting":
            view = _begin_whole(view, ring, at)
            continue
        known = facts.rings.get(ring.ring)
        if ring.state not in ENDED and known is not None and facts.complete:
            view = view.with_ring(_there(view, ring, known, verdicts[ring.ring], at))
    left = [ring for ring in view.rings if ring.state not in ENDED]
    if not left:
        return view.model_copy(update={"state": "done", "reason": "every ring is back on it"})
    bad = next((v.reason for number, v in verdicts.items() if v.outcome == "fail"), None)
    if bad is not None:
        return _hold(view, bad)
    return _patient(view, left[0], f"{left[0].switched} of {left[0].online} online nodes serve it", at)


def _there(view: View, ring: RingView, known: RingFacts, verdict: Verdict, at: datetime) -> RingView:
    if verdict.outcome == "pass":
        return _changed(ring, state="passed", ended_at=at)
    if not known.evidence.online and known.evidence.complete and waited(ring, at) > _absence(view):
        return _changed(ring, state="skipped", ended_at=at)
    return ring


def _changed(ring: RingView, **values: Any) -> RingView:
    return ring.model_copy(update=values)


def _events(before: View, after: View) -> tuple[Event, ...]:
    found = []
    if after.state == "holding" and before.state != "holding":
        found.append(Event("hold", "inconclusive", after.reason))
    if after.state in TERMINAL - {"reverted"} and before.state not in TERMINAL:
        found.append(Event(after.state, "pass" if after.state == "done" else "inconclusive", after.reason))
    return tuple(found)
