"""What a rollout asks of the place where a ring runs, whatever that is.

A target is told what a ring should be like, not what to do: every call says it whole, may come twice, late or after a
crash, and changes only what differs. Calls grow with rings and sites, never with nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable


@dataclass(frozen=True)
class ReleaseRef:
    """A release as targets need it."""

    digest: str
    version: str
    images: Mapping[str, str] = field(default_factory=dict)
    """Image references by digest, by kind: ``predictor`` answers by itself, ``model`` holds the model's files,
    ``savedmodel`` holds them as TensorFlow Serving reads them."""


@dataclass(frozen=True)
class Next:
    """The release that a ring is moving to; the nodes whose place under ``salt`` is below ``below`` run it."""

    release: ReleaseRef
    salt: str
    below: str


@dataclass(frozen=True)
class Wave:
    """What one ring of one service should be like now."""

    service: str
    ring: int
    release: ReleaseRef | None
    """What all its nodes run that ``next`` does not name; None before the first release."""
    next: Next | None = None
    """``below`` of NOBODY stages it and switches none."""
    nodes: int = 0
    """How many nodes the ring has, as far as is known."""


@dataclass(frozen=True)
class Diff:
    """What a target would change, for people: one line per thing that it touches, empty when nothing differs."""

    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of a call. ``refused`` will not heal by itself and holds the rollout; ``later`` is tried again."""

    state: Literal["done", "later", "refused"]
    reason: str = ""
    changed: int = 0
    """Objects that were changed."""


@dataclass(frozen=True)
class Observed:
    """How far a ring is. Counts, so that it is as large for ten thousand nodes as for ten."""

    nodes: int
    """That should run it."""
    staged: int
    switched: int
    """That run the release and are ready."""
    failed: int
    """That cannot."""
    offline: int
    reason: str = ""
    """Of the first failure."""


class Target(Protocol):
    """One kind of place. Every method may raise Unavailable: nothing was decided, the next tick asks again."""

    name: str

    def plan(self, wave: Wave) -> Diff:
        """What ``switch`` would change; reads only.

        Raises:
            BadInput: the wave cannot be had here, whatever is tried.
        """

    def stage(self, wave: Wave) -> Outcome:
        """Bring the bytes of ``wave.next`` near the nodes without running them."""

    def switch(self, wave: Wave) -> Outcome:
        """Make the ring be like ``wave``."""

    def observe(self, wave: Wave) -> Observed | None:
        """How far the ring is; None where the nodes' own reports say it."""

    def revert(self, wave: Wave) -> Outcome:
        """Make the ring be like ``wave``, which names a release that it ran before; not held up by any window."""


@runtime_checkable
class Sited(Protocol):
    """A target whose rings are several sites, each of which can be asked alone."""

    def sites(self, ring: int) -> Sequence[str]:
        """Names of the ring's sites."""

    def at(self, site: str) -> Target:
        """The same target with this site only."""
