"""Where a rollout stands, for people and for whoever follows it to its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.fleet.rollouts.state_store import Saved, StateStore
from edgeloop.fleet.rollouts.states import TERMINAL, RingState, RingView, State, View
from edgeloop.samples.records import now
from edgeloop.store import FleetStore

#: Waits that only a person ends.
_PERSON = frozenset({"approval", "pause", "person"})


class RolloutUnfinished(EdgeloopError):
    """A rollout did not end in the time allowed; it goes on with the next tick."""


class NeverRolledOut(BadInput):
    """No rollout of the service was ever begun."""


class RingStatus(BaseModel):
    """Where one ring stands; its counts are those of the last look."""

    ring: int
    state: RingState | Literal["reverting", "reverted"]
    """A ring that had its turn is told as ``reverting`` or ``reverted`` when the rollout is taken back."""
    batch: int
    nodes: int
    online: int
    switched: int
    failed: int
    approved_by: list[str] = Field(default_factory=list)


class RolloutStatus(BaseModel):
    """Where a rollout stands."""

    service: str
    release: str
    former: str | None
    state: State
    wave: int
    """Index of the ring whose turn it is."""
    reason: str
    switched: int = 0
    """Online nodes of the ring that run the release."""
    online: int = 0
    rollout: int = 0
    waits: str = ""
    """For what, beside nodes that do as they are told: approval, window, rate, soak, pause, turn or person."""
    next_look: datetime | None = None
    """Before this moment nothing but a failure or a person changes it."""
    rings: list[RingStatus] = Field(default_factory=list)
    dropped: str = ""
    """A newer rollout that was dropped before its turn, in one sentence; empty when there is none."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing changes it any more."""
        return self.state in TERMINAL


def ring_status(view: View, ring: RingView) -> RingStatus:
    """One ring of ``view`` for people.

    What passed does not read so any more once it is taken back; a ring that failed still says that it was the one.
    """
    found = RingStatus.model_validate({name: getattr(ring, name) for name in RingStatus.model_fields})
    is_back = ring.state not in {"waiting", "failed"} and (view.former or ring.stands)
    if not is_back:
        return found
    if view.state == "reverting":
        return found.model_copy(update={"state": "reverting"})
    if view.state != "reverted":
        return found
    # With nothing to add to its cause, no node that is online serves the release any more.
    is_over = view.former is not None and view.reason == view.cause
    return found.model_copy(update={"state": "reverted", "switched": 0 if is_over else ring.switched})


def dropped_text(dropped: Saved | None) -> str:
    """What became of a rollout that was dropped before its turn."""
    return "" if dropped is None else f"rollout {dropped.view.rollout} was dropped: {dropped.view.reason}"


def status_of(view: View) -> RolloutStatus:
    """A view for people."""
    rings = [ring_status(view, one) for one in view.rings]
    ring = rings[view.index]
    return RolloutStatus(
        service=view.service,
        release=view.release,
        former=view.former,
        state=view.state,
        wave=view.index,
        reason=view.reason,
        switched=ring.switched,
        online=ring.online,
        rollout=view.rollout,
        waits=view.waits,
        next_look=view.next_look,
        rings=rings,
    )


def describe_open(fleet: FleetStore, service: str) -> list[RolloutStatus]:
    """The newest rollout of a service; before it the one that it waits for.

    Raises:
        NeverRolledOut: there never was one.
    """
    newest = describe_rollout(fleet, service)
    active, _ = StateStore(fleet.database).opened(service)
    waits = active is not None and active.view.rollout < newest.rollout
    return [status_of(active.view), newest] if active is not None and waits else [newest]


def describe_rollout(fleet: FleetStore, service: str) -> RolloutStatus:
    """Status of a service's newest rollout; of the one before it when the newest was dropped before its turn.

    Raises:
        NeverRolledOut: there never was one.
    """
    store = StateStore(fleet.database)
    (told, dropped), row = store.told(service), store.row(service)
    if row is None:
        raise NeverRolledOut(f"{service} was never rolled out: promote a version first")
    newest = dropped or told
    if told is not None and newest is not None and newest.view.rollout == row["id"]:
        return status_of(told.view).model_copy(update={"dropped": dropped_text(dropped)})
    known = {name: row[name] for name in ("service", "former", "state", "wave", "reason")}
    return RolloutStatus(**known, release=row["digest"], rollout=row["id"])


def run_to_end(
    step: Callable[[], RolloutStatus],
    timeout: float,
    progress: Callable[[RolloutStatus], None],
    pause: float = 0.05,
) -> RolloutStatus:
    """Tick until the rollout ends, or waits for a person or for a time that is further away than ``timeout``.

    The pause, in seconds, is for the nodes, which report when they have switched.

    Raises:
        RolloutUnfinished: it had not ended after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        status = step()
        progress(status)
        left = deadline - time.monotonic()
        if status.has_ended or waits_longer(status, left):
            return status
        if left < 0:
            raise RolloutUnfinished(
                f"rollout of {status.service} waits at ring index {status.wave} ({status.reason}); it goes on:"
                " see  edgeloop status"
            )
        time.sleep(pause)


def waits_longer(status: RolloutStatus, seconds: float) -> bool:
    """Whether nodes alone will not move it within so many seconds."""
    if status.waits in _PERSON:
        return True
    return status.next_look is not None and (status.next_look - now()).total_seconds() > max(seconds, 0)
