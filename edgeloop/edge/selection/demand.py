"""What the last hour offered, from which follows what to hold back: the most valuable come first, the audit always.

Nested protection, as airlines protect seats for dearer fares (K. Littlewood, "Forecasting and control of passenger
bookings", 1972): bytes are given to a sample only out of what the audit share and all more valuable samples are not
expected to need. Everything here is learnt from past inputs, so that it says nothing of the one that asks.
"""

from __future__ import annotations

import math

from edgeloop.edge.selection.rolling import MINUTE, RollingHour

#: Classes of value.
CLASSES = 32
#: Account of the audit share (spent), or of all inputs (offered).
AUDIT = CLASSES
_ALL, _SQUARES = CLASSES, CLASSES + 1
_HOUR = 3600.0


def class_of(value: float) -> int:
    """The class of a value in [0, 1]."""
    return min(CLASSES - 1, max(0, int(value * CLASSES)))


class Demand:
    """Bytes offered in the last hour. ``since`` and ``now`` are seconds of one monotonic clock."""

    def __init__(self, since: float) -> None:
        self._since = since
        self._offered = RollingHour(CLASSES + 2)

    def offer(self, now: float, size: int, value: float | None) -> None:
        """Learn of an input of ``size`` bytes; ``value`` is None where no rule would send it."""
        minute = int(now // MINUTE)
        self._offered.advance(minute)
        self._offered.add(minute, _ALL, size)
        self._offered.add(minute, _SQUARES, size * size)
        if value is not None:
            self._offered.add(minute, class_of(value), size)

    def _per_hour(self, now: float) -> float:
        """What turns a total into an expectation for an hour."""
        return _HOUR / min(_HOUR, max(MINUTE, now - self._since))

    def audit_reserve(self, now: float, audit: float) -> float:
        """Bytes that the audit share needs in an hour: the mean and three standard deviations."""
        scale = self._per_hour(now)
        mean = audit * self._offered.totals[_ALL] * scale
        return mean + 3.0 * math.sqrt(audit * (1.0 - audit) * self._offered.totals[_SQUARES] * scale)

    def left_for_rules(self, now: float, limit: int, audit: float, value: float, spent: RollingHour) -> float:
        """Bytes that a sample of ``value`` may take now, of ``limit`` an hour: at most zero where there are none."""
        place = class_of(value)
        reserve = self.audit_reserve(now, audit)
        better = (1.0 - audit) * sum(self._offered.totals[place + 1 : CLASSES]) * self._per_hour(now)
        better -= sum(spent.totals[place + 1 : CLASSES])
        return limit - spent.total - max(0.0, reserve - spent.totals[AUDIT]) - max(0.0, better)
