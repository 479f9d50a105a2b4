"""What a decision is made of: counts of each ring that matters now, and what became of the last wishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from edgeloop.fleet.rollouts.evidence import RingEvidence
from edgeloop.fleet.rollouts.states import RingView


@dataclass(frozen=True)
class RingFacts:
    """What is known of one ring."""

    evidence: RingEvidence
    """Of the nodes below ``below``; of all its nodes while the ring stages."""
    below: str
    """The bound that was wished when they were heard: what they say of another one decides nothing."""
    names: tuple[str, ...] = ()
    """Online nodes of the ring, or all when none is; only where a batch may begin, and the target counts nodes."""


@dataclass(frozen=True)
class Facts:
    """What is known of one rollout."""

    rings: Mapping[int, RingFacts] = field(default_factory=dict)
    newer: bool = False
    """Whether another rollout of the service waits for its turn."""
    applied: bool = True
    """Whether every ring is told what it should run."""
    refused: str = ""
    """Why the target will not do what is wished, however often it is asked."""
    stuck: tuple[str, ...] | None = None
    """Online nodes that serve the release, heard after rings were told to go back; None when that was not asked."""
    complete: bool = True
    """Whether all was heard that the nodes said."""


def waited(ring: RingView, at: datetime) -> timedelta:
    """How long the present phase of ``ring`` lasts; a clock that was set back makes it short, never long."""
    return max(timedelta(0), at - ring.since) if ring.since else timedelta(0)
