"""The time of a capture on a machine whose clock may be wrong: ordered, and marked where it is not to be believed.

Boards without a battery start in 1970 and jump when the network comes; an operator may set a clock back. Two captures
of the same bytes must not get the same time, and whoever reads the samples must know which times to believe.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

#: A capture time further than this from the node's own time is marked ``clock_skew``, in seconds.
SKEW_SECONDS = 300.0
#: A clock that reads less was never set, for this is younger.
FLOOR = datetime(2025, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NodeClock:
    """UTC that only goes forward, unless the wall clock went back by more than :data:`SKEW_SECONDS`.

    A small step back (a correction by NTP) is waited out a microsecond at a time; a large one is believed and
    counted, so that times are never further than the bound from the wall clock.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._last = self._read()
        self._offset = wall() - monotonic()
        self.jumps = 0
        """How often the wall clock moved by more than :data:`SKEW_SECONDS` against the monotonic clock."""

    def _read(self) -> datetime:
        return _EPOCH + timedelta(seconds=self._wall())

    def now(self) -> datetime:
        """The time of a capture that is made now."""
        with self._lock:
            now = self._read()
            offset = self._wall() - self._monotonic()
            ahead = (self._last - now).total_seconds()
            if abs(offset - self._offset) > SKEW_SECONDS or ahead > SKEW_SECONDS:
                self.jumps += 1
            if 0 <= ahead <= SKEW_SECONDS:
                now = self._last + _TICK
            self._offset, self._last = offset, now
            return now

    def stamp(self) -> str:
        """The wall clock's time as ISO 8601, for people to read."""
        return self._read().isoformat()

    def is_skewed(self, at: datetime) -> bool:
        """Whether a capture time is not to be believed without a thought, a device's or this node's own.

        It is from before :data:`FLOOR`, or too far from this node's time. While that itself is from before the floor
        it is no measure of others.
        """
        now = self._read()
        return at < FLOOR or (now >= FLOOR and abs((at - now).total_seconds()) > SKEW_SECONDS)
