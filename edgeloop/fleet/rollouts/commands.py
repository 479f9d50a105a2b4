"""What people and the reconciler of promotions ask of a rollout.

Each command replaces the rollout's state at once, with its row in the ledger; the next tick tells the rings. What
cannot be done is refused before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from edgeloop.errors import BadInput
from edgeloop.fleet.channel import Rings
from edgeloop.fleet.rollouts.checks import check_strategy
from edgeloop.fleet.rollouts.decide import Decision, Event, take_back
from edgeloop.fleet.rollouts.standing import former_of, freeze, what_stands, within_the_hour
from edgeloop.fleet.rollouts.state_store import ATTEMPTS, Beginning, Saved, StateStore, busy
from edgeloop.fleet.rollouts.states import ENDED, RingView, View, approvable
from edgeloop.fleet.rollouts.status import RolloutStatus, status_of
from edgeloop.samples.records import now
from edgeloop.samples.service import Service
from edgeloop.store import FleetStore

#: A release whose newest rollout is in one of these is not begun again by itself.
_HAD = frozenset({"queued", "moving", "holding", "reverting", "done", "reverted", "aborted"})


class RolloutEnded(BadInput):
    """Nothing of this service is under way."""


class UnknownRing(BadInput):
    """A ring that is not one of the rollout's, or that waits for no word."""


class SameApprover(BadInput):
    """The same person's word a second time."""


class NothingToResume(BadInput):
    """A rollout that is neither paused nor held."""


class GoingBack(BadInput):
    """A rollout that is being taken back already."""


def start(
    fleet: FleetStore,
    channel: Rings,
    service: Service,
    release: str,
    reason: str,
    who: str | None = None,
    *,
    again: bool = False,
    at: datetime | None = None,
) -> bool:
    """Begin to roll ``release`` out, or queue it behind the one under way; whether this call did so.

    Not one that is under way, that all rings run already, or that had its rollout before and no other came since: what
    was taken back or left by a rollback does not come again by itself, only with ``again``.

    Args:
        who: who promoted it; by default the gate if it passed the version, else a hand that moved the alias.

    Raises:
        BadInput: the service's strategy cannot be followed; nothing was written.
    """
    at = at or now()
    check_strategy(service, at)
    store = StateStore(fleet.database)
    who = who or _promoter(fleet, service.name, release)
    for _ in range(ATTEMPTS):
        try:
            return _start(store, channel, service, release, reason, who, again, at)
        except Beginning:
            continue
    raise busy(service.name)


def _promoter(fleet: FleetStore, service: str, release: str) -> str:
    version, judged = fleet.version_of(service, release), fleet.last_judged(service)
    by_gate = judged is not None and judged["verdict"] == "pass" and judged["version"] == version
    return "gate" if by_gate else "alias"


def _start(
    store: StateStore, channel: Rings, service: Service, release: str, why: str, who: str, again: bool, at: datetime
) -> bool:
    active, queued = store.opened(service.name)
    if active and active.view.release == release and active.view.state != "reverting":
        if queued is not None:  # back to the one that is on its way: what would come after it will not
            _drop(store, queued, f"{who} wants the release before it again", who, at)
        return False
    if queued and queued.view.release == release:
        return False
    if not again and _had(store, service.name, release):
        return False
    stands = what_stands(store, channel, service.name, service.rings)
    if active is None and all(stands.get(ring) == release for ring in service.rings) and store.row(service.name):
        return False
    view = freeze(service, release, why, who, stands, former_of(store, service.name, release, stands))
    if active is not None:
        text = f"waits until rollout {active.view.rollout} has come to the end of its ring, or ended: {why}"
        view = view.model_copy(update={"state": "queued", "waits": "turn", "reason": text})
    store.begin(within_the_hour(store, view), at, drop=queued)
    return True


def _drop(store: StateStore, queued: Saved, text: str, who: str, at: datetime) -> None:
    """End what did not begin; raises Beginning when it went on meanwhile."""
    if not store.save(queued, _dropped(queued.view, text), (Event("abort", "inconclusive", text, who),), at):
        raise Beginning


def _had(store: StateStore, service: str, release: str) -> bool:
    last, row = store.newest(service), store.row(service)
    if last is not None and last.view.everywhere and last.view.leaves == release:
        return True
    return row is not None and row["digest"] == release and row["state"] in _HAD


def _dropped(view: View, reason: str) -> View:
    return view.model_copy(update={"state": "aborted", "reason": reason, "waits": "", "next_look": None})


def approve(fleet: FleetStore, service: str, ring: int, who: str, reason: str = "") -> RolloutStatus:
    """Say that ``ring`` may switch.

    Raises:
        RolloutEnded, UnknownRing, SameApprover: nothing was written.
    """

    def change(view: View, _at: datetime) -> Decision:
        found = approvable(view, ring)
        if found is None:
            raise UnknownRing(
                f"ring {ring} of the rollout of {service} waits for no word: see  edgeloop rollout status {service}"
            )
        if who in found.approved_by:
            raise SameApprover(f"{who} approved ring {ring} of {service} already: {_after_word(view, found)}")
        changed = view.with_ring(found.model_copy(update={"approved_by": (*found.approved_by, who)}))
        if view.waits == "approval" and view.current.ring == ring:
            # Else whoever looks before the next tick says it again.
            changed = changed.model_copy(update={"waits": "", "reason": f"ring {ring} may switch, says {who}"})
        return Decision(changed, (Event("approve", "pass", f"ring {ring}: {reason or 'may switch'}", who),))

    return _act(fleet, service, change)


def _after_word(view: View, ring: RingView) -> str:
    """What comes after the word that a ring has."""
    if view.paused_by:
        return f"{view.paused_by} paused the rollout, go on with  edgeloop rollout resume {view.service}"
    if view.state == "moving" and view.current.ring == ring.ring and view.waits in {"", "approval"}:
        return "the next tick goes on"
    return f"see  edgeloop rollout status {view.service}  for what it waits for"


def pause(fleet: FleetStore, service: str, who: str, reason: str = "") -> RolloutStatus:
    """Begin no further batch until it is resumed; what began is judged on, and taken back when it fails."""

    def change(view: View, _at: datetime) -> Decision:
        if view.paused_by:
            return Decision(view)
        text = f"paused by {who}" + (f": {reason}" if reason else "")
        paused = {"paused_by": who, "waits": "pause", "reason": text, "next_look": None}
        return Decision(view.model_copy(update=paused), (Event("pause", "inconclusive", text, who),))

    return _act(fleet, service, change)


def resume(fleet: FleetStore, service: str, who: str, reason: str = "") -> RolloutStatus:
    """Go on after a pause, or have patience once more with a ring that is held."""

    def change(view: View, at: datetime) -> Decision:
        if not view.paused_by and view.state != "holding":
            raise NothingToResume(f"rollout of {service} is {view.state} and not paused: there is nothing to resume")
        fresh = tuple(r if r.state in ENDED or r.since is None else _since(r, at) for r in view.rings)
        text = f"resumed by {who}" + (f": {reason}" if reason else "")
        state = "moving" if view.state == "holding" else view.state
        values = {"paused_by": "", "state": state, "waits": "", "reason": text, "rings": fresh}
        return Decision(view.model_copy(update=values), (Event("resume", "pass", text, who),))

    return _act(fleet, service, change)


def _since(ring: Any, at: datetime) -> Any:
    return ring.model_copy(update={"since": at})


def abort(fleet: FleetStore, service: str, who: str, reason: str) -> RolloutStatus:
    """End it here: the unfinished ring goes back, rings that passed keep the release, no other begins."""

    def change(view: View, _at: datetime) -> Decision:
        text = f"aborted by {who}: {reason}"
        return Decision(_dropped(view, text), (Event("abort", "inconclusive", text, who),))

    return _act(fleet, service, change)


def revert(fleet: FleetStore, service: str, who: str, reason: str) -> RolloutStatus:
    """Take back what is under way: every ring goes to the former release, and none that is queued begins."""
    store = StateStore(fleet.database)
    _drop_queued(store, service, who, reason)
    return _act(fleet, service, lambda view, at: _back(view, f"reverted by {who}: {reason}", at, who))


def _back(view: View, text: str, at: datetime, who: str) -> Decision:
    """Taken back; what did not begin yet is only dropped, since what the rings run is not its doing."""
    if view.state == "queued":
        return Decision(_dropped(view, text), (Event("abort", "inconclusive", text, who),))
    return take_back(view, text, at, who)


def stop(fleet: FleetStore, service: str, who: str, reason: str) -> bool:
    """Take back whatever is under way, if anything is; whether there was. May be called again."""
    store = StateStore(fleet.database)
    dropped = _drop_queued(store, service, who, reason)
    try:
        _act(fleet, service, lambda view, at: _back(view, f"stopped by {who}: {reason}", at, who))
    except (RolloutEnded, GoingBack):
        return dropped
    return True


def _drop_queued(store: StateStore, service: str, who: str, reason: str) -> bool:
    for _ in range(ATTEMPTS):
        active, queued = store.opened(service)
        if active is None or queued is None:
            return False
        try:
            _drop(store, queued, f"aborted by {who} before its turn: {reason}", who, now())
        except Beginning:
            continue
        return True
    raise busy(service)


def _act(fleet: FleetStore, service: str, change: Callable[[View, datetime], Decision]) -> RolloutStatus:
    """Replace the state of what is under way by what ``change`` makes of it."""
    store = StateStore(fleet.database)
    for _ in range(ATTEMPTS):
        active, queued = store.opened(service)
        saved = active or queued
        if saved is None:
            raise RolloutEnded(_ended_text(store, service))
        if saved.view.state == "reverting":
            raise GoingBack(f"rollout of {service} is being taken back: see  edgeloop rollout status {service}")
        at = now()
        decision = change(saved.view, at)
        if decision.view == saved.view or store.save(saved, decision.view, decision.events, at):
            return status_of(decision.view)
    raise busy(service)


def _ended_text(store: StateStore, service: str) -> str:
    (told, _), row = store.told(service), store.row(service)
    state = told.view.state if told else row["state"] if row else None
    said = f"its last rollout is {state}: start one, or go back with  edgeloop rollback {service}"
    return f"nothing of {service} is under way, {said if state else 'it was never rolled out: promote a version first'}"
