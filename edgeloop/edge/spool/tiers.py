"""How much of what value waits, in a few numbers per log, so that a full spool knows what to drop without reading it.

A value in [0, 1] falls in one of sixteen tiers. Labels have a tier of their own above all: a person or a device
said something that cannot be measured again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

#: Tiers of samples: 0 is the least valuable, :data:`TIERS` - 1 holds a value of 1.
TIERS = 16
#: The tier of labels.
LABEL_TIER = TIERS


def tier_of(value: float) -> int:
    """The tier of a sample's value; what is outside [0, 1] counts as the nearest bound, NaN as 0."""
    if math.isnan(value):
        return 0
    return int(min(max(value, 0.0) * TIERS, TIERS - 1))


class Tiers:
    """Records and bytes by tier."""

    def __init__(self) -> None:
        self.counts = [0] * (LABEL_TIER + 1)
        self.sizes = [0] * (LABEL_TIER + 1)

    @property
    def count(self) -> int:
        """Records of all tiers."""
        return sum(self.counts)

    def add(self, tier: int, size: int) -> None:
        """Count one record of ``size`` bytes."""
        self.counts[tier] += 1
        self.sizes[tier] += size

    def merge(self, other: Tiers, sign: int = 1) -> None:
        """Add ``other``; take it away with a ``sign`` of -1."""
        for tier in range(LABEL_TIER + 1):
            self.counts[tier] += sign * other.counts[tier]
            self.sizes[tier] += sign * other.sizes[tier]

    def lowest(self) -> int | None:
        """The least valuable tier of which there is something, labels left out."""
        return next((tier for tier in range(TIERS) if self.counts[tier]), None)


def total(parts: Iterable[Tiers]) -> Tiers:
    """The sum of ``parts``."""
    result = Tiers()
    for part in parts:
        result.merge(part)
    return result


def plan(logs: Sequence[Tiers], need: int, below: int) -> list[tuple[int, frozenset[int]]]:
    """What to drop so that ``need`` bytes come free, or as much as there is in the tiers under ``below``.

    ``logs`` are ordered from the oldest. The lowest tiers go whole; of the last one only what the oldest logs
    hold, as far as it is needed. Returns (index of a log, tiers that it loses), each log once at most.
    """
    whole, last = _threshold(total(logs), need, below)
    left = need - sum(total(logs).sizes[:whole])
    steps: list[tuple[int, frozenset[int]]] = []
    for index, log in enumerate(logs):
        lost = {tier for tier in range(whole) if log.counts[tier]}
        if last is not None and left > 0 and log.counts[last]:
            lost.add(last)
            left -= log.sizes[last]
        if lost:
            steps.append((index, frozenset(lost)))
    return steps


def _threshold(present: Tiers, need: int, below: int) -> tuple[int, int | None]:
    """(tiers under the first number go whole, the tier that goes in part or None)."""
    freed = 0
    for tier in range(min(below, TIERS)):
        if freed + present.sizes[tier] >= need:
            return tier, tier
        freed += present.sizes[tier]
    return min(below, TIERS), None
