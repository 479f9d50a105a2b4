"""Where a rollout stands, as one frozen value, and what each ring should run because of it.

The whole state is a value so that deciding is a function of it, and saving it is one write that another may have won.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from edgeloop.fleet.channel import Pointing
from edgeloop.samples.cohorts import EVERYONE, NOBODY
from edgeloop.samples.releases import Next
from edgeloop.samples.strategy import Step, Strategy, Window

State = Literal["queued", "moving", "holding", "reverting", "done", "reverted", "aborted", "superseded"]
RingState = Literal["waiting", "staging", "staged", "switching", "soaking", "passed", "skipped", "failed"]
#: Nothing changes them any more.
TERMINAL = frozenset({"done", "reverted", "aborted", "superseded"})
#: On its way: the one of its service.
ACTIVE = frozenset({"moving", "holding", "reverting"})
#: Rings that a rollout is through with.
ENDED = frozenset({"passed", "skipped"})
#: Rings of which some nodes may have been told to switch.
BEGUN = frozenset({"switching", "soaking", "passed", "skipped", "failed"})


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class RingView(_Frozen):
    """One ring of a rollout."""

    ring: int
    stands: str | None = None
    """Release that it ran before; None when this is its first."""
    state: RingState = "waiting"
    below: str = NOBODY
    """Nodes whose place is below it are told to switch. It only grows."""
    batch: int = 0
    """Batches begun."""
    since: datetime | None = None
    """When the present phase or batch began, or a person asked for more patience."""
    begun_at: datetime | None = None
    """When its nodes were first told of the release: what they said before is not about this rollout."""
    switched_at: datetime | None = None
    """When the last batch began."""
    ended_at: datetime | None = None
    approved_by: tuple[str, ...] = ()
    nodes: int = 0
    """Counts are those of the last look."""
    online: int = 0
    switched: int = 0
    failed: int = 0


class View(_Frozen):
    """One rollout."""

    rollout: int
    service: str
    release: str
    former: str | None = None
    """The newest release that was rolled out to the end before: what a revert goes back to."""
    state: State = "moving"
    reason: str
    """What it does or waits for, for people."""
    cause: str = ""
    """Why it is taken back."""
    waits: Literal["", "approval", "window", "rate", "soak", "pause", "turn", "person"] = ""
    """For what, beside nodes that do as they are told."""
    next_look: datetime | None = None
    """Before this moment nothing but a failure or a person changes it."""
    rings: tuple[RingView, ...]
    """In the order in which they get the release."""
    strategy: Strategy
    salt: str
    who: str
    why: str
    paused_by: str = ""
    everywhere: bool = False
    """All rings at once: a person takes the service back to a release that was good."""
    leaves: str | None = None
    """The release that ``everywhere`` takes the service away from."""
    back_at: datetime | None = None
    """When it was taken back."""
    touches: tuple[tuple[datetime, int], ...] = ()
    """Nodes told to switch, by time, as far as ``per_hour`` counts them."""

    @property
    def index(self) -> int:
        """Index of the ring whose turn it is; of the last one when all had theirs."""
        left = (n for n, ring in enumerate(self.rings) if ring.state not in ENDED)
        return next(left, len(self.rings) - 1)

    @property
    def current(self) -> RingView:
        """The ring whose turn it is."""
        return self.rings[self.index]

    def with_ring(self, changed: RingView, **values: object) -> View:
        """This view with one ring, and perhaps more, changed."""
        rings = tuple(changed if ring.ring == changed.ring else ring for ring in self.rings)
        return self.model_copy(update={"rings": rings, **values})

    def step(self, ring: int) -> Step:
        """What the strategy says of ``ring`` alone."""
        return self.strategy.rings.get(ring, Step())

    def batches(self, ring: int) -> list[int | float]:
        """The batches of ``ring``: counts of nodes, or shares of the ring."""
        return list(self.step(ring).batches or self.strategy.batches)

    def windows(self, ring: int) -> list[Window]:
        """When batches of ``ring`` may begin; empty for always."""
        own = self.step(ring).windows
        return self.strategy.windows if own is None else own

    def soak_seconds(self, ring: int) -> float:
        """Least time between the last switch of ``ring`` and its verdict."""
        own = self.step(ring).soak_seconds
        return self.strategy.soak_seconds if own is None else own

    def is_direct(self, ring: RingView) -> bool:
        """Whether the ring is simply pointed at the release.

        So it is where nothing can come between staging and switching, since a node that follows the channel fetches
        and verifies by itself before it switches; and for a ring's first release: there is nothing that a part of it
        could go on running.
        """
        if ring.stands is None or self.everywhere:
            return True
        if self.strategy.target != "agent":
            return False
        plain = is_whole(self.batches(ring.ring)) and self.strategy.per_hour is None
        return plain and not self.step(ring.ring).approve and not self.windows(ring.ring)


def is_whole(batches: Sequence[int | float]) -> bool:
    """Whether the first batch is all of the ring: the share 1.0, and not a count of 1."""
    return isinstance(batches[0], float) and batches[0] == 1.0


def desired(view: View) -> dict[int, Pointing]:
    """What each ring should run; rings that never ran anything and have not had their turn are left out."""
    found = ((ring.ring, _pointing(view, ring)) for ring in view.rings)
    return {ring: to for ring, to in found if to is not None}


def _pointing(view: View, ring: RingView) -> Pointing | None:
    whole = Pointing(view.release)
    if view.state == "done":
        return whole
    if view.state in {"reverting", "reverted"}:
        return Pointing(view.former) if view.former else _left(view, ring)
    if ring.state in ENDED:
        return whole
    if view.state in {"aborted", "superseded"}:
        return _left(view, ring)
    return _moving(view, ring)


def _left(view: View, ring: RingView) -> Pointing | None:
    """Where a ring stays that the rollout left behind; its first release stays, there is no other."""
    if ring.stands is not None:
        return Pointing(ring.stands)
    return Pointing(view.release) if ring.state in BEGUN else None


def _moving(view: View, ring: RingView) -> Pointing | None:
    if ring.state == "waiting":
        return None if ring.stands is None else Pointing(ring.stands)
    if ring.stands is None or view.is_direct(ring):
        return Pointing(view.release)
    return Pointing(ring.stands, Next(release=view.release, salt=view.salt, below=ring.below))


def touched_rings(view: View) -> list[RingView]:
    """Rings of which nodes may have been told to switch."""
    return [ring for ring in view.rings if ring.below != NOBODY]


def began(view: View, stands: Mapping[int, str], former: str | None) -> View:
    """A queued rollout whose turn it is: it begins at what the rings run now."""
    rings = tuple(ring.model_copy(update={"stands": stands.get(ring.ring)}) for ring in view.rings)
    return view.model_copy(
        update={"state": "moving", "waits": "", "rings": rings, "former": former, "reason": view.why}
    )


def approvable(view: View, ring: int) -> RingView | None:
    """The ring of this number if it waits, or will wait, for a word."""
    found = next((one for one in view.rings if one.ring == ring), None)
    return found if found and view.step(ring).approve and found.below != EVERYONE else None
