"""What a rollout knows of one ring when it decides: counts and sums, as large for ten thousand nodes as for ten."""

from __future__ import annotations

from dataclasses import dataclass

NO_COUNTS = (0,) * 10


@dataclass(frozen=True)
class Tally:
    """What nodes counted under one release, each node's part capped so that a busy one cannot decide alone."""

    answered: int = 0
    failed: int = 0
    audited: int = 0
    agreed: int = 0
    histogram: tuple[int, ...] = NO_COUNTS
    """Confidences in ten equal bins of [0, 1]."""


@dataclass(frozen=True)
class RingEvidence:
    """What a ring's nodes say of a release, by what was last heard of each."""

    nodes: int = 0
    """Known in the ring."""
    online: int = 0
    touched: int = 0
    """Nodes that were told to switch."""
    touched_online: int = 0
    staged: int = 0
    """Online nodes that hold the release verified on disk, or serve it."""
    switched: int = 0
    """Online touched nodes that serve it."""
    failed: int = 0
    """Touched nodes that refused it, or fell back from it."""
    failed_away: int = 0
    """Those of them that are offline: nobody waits for them, and they decide nothing but that."""
    first_failure: str = ""
    """``<node>: <what it said>``."""
    timed: int = 0
    """Touched nodes whose p99 is known under the release and under the former one."""
    slow: int = 0
    """Those of them that are slower than ``max_latency_ratio`` allows."""
    release: Tally = Tally()
    former: Tally = Tally()
    """The same nodes under the release before."""
    lost: int = 0
    """Touched nodes that said they serve it and are offline now. Bad links do that too: they fail nothing, and count as
    undecided."""
    is_first: bool = False
    """There is no former release: nothing to compare with, however long one waits."""
    complete: bool = True
    """False when not all that the broker keeps was heard: such evidence passes nothing."""
