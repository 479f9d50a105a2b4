"""What a ring's record means for this node: what it is to run now, and what it is only to have ready.

A record changes with every batch, and a wish does not: a release that was refused is not tried again because the bound
of its batches grew, and is when another rollout wants it.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeloop.samples.cohorts import switches
from edgeloop.samples.releases import Wanted


@dataclass(frozen=True)
class Wish:
    """A release that is wanted, and by what."""

    release: str
    name: str
    """The same for as long as it is the same wish: salt of the rollout, or sequence number of the first record."""


@dataclass(frozen=True)
class Wishes:
    """One record, as one node has to read it."""

    now: Wish
    """What it is to run."""
    later: Wish | None
    """What it is to have on its disk, verified, until its batch comes."""

    def names(self) -> dict[str, str]:
        """Name of the wish by release."""
        return {wish.release: wish.name for wish in (self.now, self.later) if wish}


def wishes_of(record: Wanted, node: str) -> Wishes:
    """What ``record`` wants of ``node``."""
    present = Wish(record.release, record.wish_for_release)
    if record.next is None or record.next.release == record.release:
        return Wishes(present, None)
    coming = Wish(record.next.release, record.next.salt)
    if switches(record.next.salt, node, record.next.below):
        return Wishes(coming, None)
    return Wishes(present, coming)
