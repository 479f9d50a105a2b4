"""Bytes that may leave in any hour: never exceeded, whatever is killed, restarted or set to another time.

Bytes are leased on disk in chunks before they are spent. A chunk is good for the minute in which it was leased; the
rest of it is given back then. What a killed process had leased counts as spent.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

from edgeloop.edge.selection.demand import AUDIT, CLASSES, Demand, class_of
from edgeloop.edge.selection.lease import Entry, LeaseFile
from edgeloop.edge.selection.rolling import LIVE_MINUTES, MINUTE, RollingHour

_log = logging.getLogger(__name__)
_BEFORE = CLASSES + 1
#: After the disk refused, it is asked again this many seconds later.
_RETRY = 1.0
#: With nothing to lease, the file is still renewed this often (seconds), so that a reboot finds young figures.
_RENEW = 300.0
#: Rounding of a sum of floats must not move an amount into the next minute.
_ROUNDING = 1e-6


class HourlyBudget:
    """What one service spent, and may spend. One thread at a time; ask :meth:`advance` first, then the rest."""

    def __init__(self, path: Path, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock = clock
        self.now = clock()
        self._file = LeaseFile(path, clock, wall)
        self._spent = RollingHour(CLASSES + 2)
        self._demand = Demand(self.now)
        self._left = 0
        self._on_disk = bool(self._file.entries)
        self._written = self.now
        self._retry = -math.inf
        self._load()

    def _load(self) -> None:
        for left, size in sorted(self._file.entries):
            last = math.ceil((self.now + left) / MINUTE - _ROUNDING)
            self._spent.add(last - LIVE_MINUTES, _BEFORE, size)

    @property
    def takes_no_lease(self) -> bool:
        """Whether the disk refused a lease a moment ago: only what is leased may be spent."""
        return self.now < self._retry

    @property
    def _minute(self) -> int:
        return int(self.now // MINUTE)

    def advance(self) -> None:
        """Read the clock; should it go back, time stands still until it has caught up."""
        before, self.now = self._minute, max(self.now, self._clock())
        if self._minute == before:
            return
        self._left = 0
        self._spent.advance(self._minute)
        if self._on_disk and self.now - self._written >= _RENEW:
            self._write(0)

    def admits_audit(self, size: int, limit: int | None) -> bool:
        """Whether an audited sample of ``size`` bytes may be sent."""
        if limit is None:
            return True
        return size <= limit - self._spent.total and (size <= self._left or self.now >= self._retry)

    def admits_rule(self, size: int, limit: int | None, audit: float, value: float) -> bool:
        """Whether a sample of ``value`` that a rule selects may be sent; only where an audited one may."""
        if limit is None:
            return True
        if not self.admits_audit(size, limit):
            return False
        return size <= self._demand.left_for_rules(self.now, limit, audit, value, self._spent)

    def offer(self, size: int, value: float | None) -> None:
        """Learn from an input after it was decided on; ``value`` is None where no rule would send it."""
        self._demand.offer(self.now, size, value)

    def spend(self, size: int, limit: int | None, value: float | None) -> bool:
        """Take bytes, durably; ``value`` is None for the audit. False where the disk does not take a lease."""
        if limit is not None:
            if size > self._left and not self._lease(size, limit):
                return False
            self._left -= size
        self._spent.add(self._minute, AUDIT if value is None else class_of(value), size)
        return True

    def _lease(self, size: int, limit: int) -> bool:
        chunk = min(max(size, int(limit // MINUTE)), limit - self._spent.total)
        if chunk < size or self.now < self._retry or not self._write(chunk):
            return False
        self._left = chunk
        return True

    def _write(self, chunk: int) -> bool:
        entries: list[Entry] = [(self._counts_for(minute), size) for minute, size in self._spent.minutes()]
        if chunk:
            entries.append((self._counts_for(self._minute), chunk))
        try:
            self._file.write(entries)
        except OSError as error:
            self._retry = self.now + _RETRY
            _log.error("no bytes could be leased", extra={"error": str(error)})
            return False
        self._on_disk = bool(entries)
        self._written = self.now
        return True

    def _counts_for(self, minute: int) -> float:
        return (minute + LIVE_MINUTES) * MINUTE - self.now
